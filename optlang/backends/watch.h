// What is looked at before tables of pointers are used again. The functions of Python and torch are given by address, so nothing
// of either is needed to compile this. A Tensor is where a Python object holds torch's own: see `place` in watch.py.
#include <cstdint>

typedef int64_t i64;
typedef uint64_t u64;
typedef void* Object;
typedef void* Tensor;

struct Outside {
  i64 (*list_size)(Object), (*dict_size)(Object);
  Object (*list_item)(Object, i64);
  int (*next_item)(Object, i64*, Object*, Object*);
  const Tensor& (*gradient)(void*);
  void (*written)(Tensor*);
  bool (*is_negative)(Tensor*);
  int (*data)(Tensor*, void**), (*size)(Tensor*, i64*), (*rank)(Tensor*, i64*), (*shape)(Tensor*, i64**), (*strides)(Tensor*, i64**);
  int (*type)(Tensor*, int32_t*), (*layout)(Tensor*, int32_t*), (*device)(Tensor*, int32_t*), (*number)(Tensor*, int32_t*);
  i64 place;        // of the Tensor in a Python object
  Tensor none;      // what stands where there is no gradient
};
const i64 AHEAD = 6;
struct Facts { i64 type, device, shape, size, data; };

// Whether numbers lie in order, as they are, in one piece of memory; and what is known of it.
static bool told(const Outside& o, Tensor* x, Facts& found) {
  int32_t layout, type, device, number = 0;
  i64 rank, *shape, *strides, size = 1;
  void* data;
  if (o.layout(x, &layout) || layout || o.type(x, &type) || o.device(x, &device) || (device && o.number(x, &number))) return false;
  if (o.rank(x, &rank) || o.shape(x, &shape) || o.strides(x, &strides) || o.is_negative(x)) return false;
  u64 mixed = (u64)rank;
  for (i64 k = 0; k < rank; k++) mixed = (mixed ^ (u64)shape[k]) * 0x100000001B3u + 1;
  bool in_order = true;
  for (i64 k = rank - 1; k >= 0; size *= shape[k--]) in_order &= shape[k] == 1 || strides[k] == size;
  if (!(in_order || size == 0) || o.data(x, &data) || (!data && size)) return false;
  found = {type, (i64)device << 32 | number, (i64)mixed, size, (i64)data};
  return true;
}
// What comes some places later is sent for ahead of its turn, link by link: the object, torch's tensor, what that points to first
// (its memory, and what autograd knows), and the gradient. A wrong guess of what lies where costs time and nothing else.
static void send(const void* at, int lines) {
  for (int line = 0; line < lines; line++) __builtin_prefetch((const char*)at + 64 * line);
}
static void send_for(const Outside& o, i64 n, i64 count, const Object* objects, const bool* are_gradients) {
  const auto tensor = [&](i64 k) { return *(void* const* const*)((char*)objects[k] + o.place); };
  const auto gradient = [&](i64 k) { return *(void* const* const*)&o.gradient((void*)tensor(k)); };
  if (n + 5 * AHEAD < count) send((char*)objects[n + 5 * AHEAD] + o.place, 1);
  if (n + 4 * AHEAD < count) send(tensor(n + 4 * AHEAD), 4);
  if (n + 3 * AHEAD < count) send(tensor(n + 3 * AHEAD)[2], 1), send(tensor(n + 3 * AHEAD)[3], 2);
  if (n + 2 * AHEAD < count && are_gradients[n + 2 * AHEAD]) send(gradient(n + 2 * AHEAD), 4);
  if (n + AHEAD < count && are_gradients[n + AHEAD]) send(gradient(n + AHEAD)[2], 1);
}
static Tensor* held(const Outside& o, Object object, bool is_gradient) {
  Tensor* const x = (Tensor*)((char*)object + o.place);
  return is_gradient ? (Tensor*)&o.gradient(*x) : x;
}

// Facts of tensors, or of their gradients; 0 where one of them is not to be had or not in order.
extern "C" int look(const Outside* o, i64 count, const Object* objects, const bool* are_gradients, Facts* found) {
  for (i64 n = 0; n < count; n++) {
    Tensor* const x = held(*o, objects[n], are_gradients[n]);
    if (*x == o->none || !told(*o, x, found[n])) return 0;
  }
  return 1;
}

// Whether all are as they were. The memory of a gradient may be another one; then it is written into its place among the pointers.
extern "C" int hold(const Outside* o, i64 count, const Object* objects, const bool* are_gradients, const Facts* known, i64* pointers) {
  for (i64 n = 0; n < count; n++) {
    send_for(*o, n, count, objects, are_gradients);
    Tensor* const x = held(*o, objects[n], are_gradients[n]);
    Facts now;
    if (*x == o->none || !told(*o, x, now)) return 0;
    if (now.type != known[n].type || now.device != known[n].device || now.shape != known[n].shape || now.size != known[n].size) return 0;
    if (now.data != pointers[n] && !are_gradients[n]) return 0;
    pointers[n] = now.data;
  }
  return 1;
}

// Whether tensors of one number are these numbers, one behind the other: 2 where all are the same, 1 where not.
extern "C" int counted(const Outside* o, i64 count, const Object* objects, const float* numbers) {
  bool same = true;
  for (i64 n = 0; n < count; n++) {
    if (n + 2 * AHEAD < count) send(*(void* const* const*)((char*)objects[n + 2 * AHEAD] + o->place), 4);
    void* data;
    if (o->data(held(*o, objects[n], false), &data) || data != numbers + n) return 0;
    same &= numbers[n] == *numbers;
  }
  return 1 + same;
}

// Whether lists hold these objects, one list behind the other, of which those that are marked have a gradient.
extern "C" int listed(const Outside* o, i64 count, const Object* lists, const i64* sizes, const Object* objects, const bool* have_gradient) {
  for (i64 n = 0; n < count; n++) {
    if (o->list_size(lists[n]) != sizes[n]) return 0;
    for (i64 k = 0; k < sizes[n]; k++, objects++, have_gradient++) {
      send_for(*o, 0, sizes[n] - k, objects, have_gradient);
      if (o->list_item(lists[n], k) != *objects) return 0;
      if ((*held(*o, *objects, true) != o->none) != *have_gradient) return 0;
    }
  }
  return 1;
}

// Whether a dictionary of dictionaries holds these objects: for each of its keys this one, what stands there and what that holds.
extern "C" int kept(const Outside* o, Object all, i64 count, const Object* objects, const i64* sizes) {
  i64 place = 0, later = 0, last = 0, inner;
  Object key, value;
  if (o->dict_size(all) != count) return 0;
  for (i64 n = -2 * AHEAD; n < count; n++) {
    if (o->next_item(all, &later, &key, &value)) send(value, 1);
    if (n >= -AHEAD && o->next_item(all, &last, &key, &value)) send(((void**)value)[4], 3), send(((void**)value)[5], 1);
    if (n < 0 || !o->next_item(all, &place, &key, &value)) continue;
    if (*objects++ != key || *objects++ != value || o->dict_size(value) != sizes[n]) return 0;
    Object name, x;
    for (inner = 0; o->next_item(value, &inner, &name, &x);)
      if (*objects++ != name || *objects++ != x) return 0;
  }
  return 1;
}

// Tells autograd that tensors have been written; 0 where one of them does not count that.
extern "C" int tell(const Outside* o, i64 count, const Object* objects) {
  try {
    for (i64 n = 0; n < count; n++) {
      if (n + AHEAD < count) send(*(void* const* const*)((char*)objects[n + AHEAD] + o->place), 4);
      o->written(held(*o, objects[n], false));
    }
  } catch (...) {
    return 0;
  }
  return 1;
}
