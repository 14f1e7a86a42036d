// What is looked at before tables of pointers are used again. The functions of Python and torch are given by address, so nothing
// of either is needed to compile this. A Tensor is where a Python object holds torch's own: see `place` in watch.py.
#include <cstdint>
#include <cstring>

typedef int64_t i64;
typedef uint64_t u64;
typedef void* Object;
typedef void* Tensor;

struct Outside {
  i64 (*list_size)(Object), (*dict_size)(Object);
  Object (*list_item)(Object, i64);
  int (*next_item)(Object, i64*, Object*, Object*);
  const Tensor& (*gradient)(void*);
  Tensor& (*own_gradient)(void*);  // the same to be written, also where there has been none yet
  void (*written)(Tensor*);
  bool (*is_negative)(Tensor*);
  int (*data)(Tensor*, void**), (*size)(Tensor*, i64*), (*rank)(Tensor*, i64*), (*shape)(Tensor*, i64**), (*strides)(Tensor*, i64**);
  int (*type)(Tensor*, int32_t*), (*layout)(Tensor*, int32_t*), (*device)(Tensor*, int32_t*), (*number)(Tensor*, int32_t*);
  int (*assign)(Tensor*, Tensor*);  // the first to the second, which from then on keeps it
  i64 place;        // of the Tensor in a Python object
  Tensor none;      // what stands where there is no gradient
  i64 version;      // of the word of a dictionary that is another one whenever something in it is; 0: there is none
};
const i64 AHEAD = 8, FEW = 16;
struct Facts { i64 type, device, shape, size, data; };
struct Kind { u64 mask[WORDS], words[WORDS]; };  // what tensors of a kind have in common, word by word: see tensor_words.py
struct Place { const void *tensor, *memory, *more; };  // where things were when they were looked at the last time

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
// What comes some places later is sent for ahead of its turn, where it was the last time. A wrong guess costs time and nothing else.
static void send(const void* at, int lines) {
  for (int line = 0; line < lines; line++) __builtin_prefetch((const char*)at + 64 * line);
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

typedef u64 __attribute__((may_alias)) Word;
static bool is_of(const Kind& kind, Tensor x) {
  const Word* words = (const Word*)x;
  u64 other = 0;
  for (int k = 0; k < WORDS; k++) other |= (words[k] ^ kind.words[k]) & kind.mask[k];
  return !other;
}

// The kind of each tensor of up to `RANKS - 1` dimensions, -1 of others; how many kinds there are. Those that come late are not all told
// apart: that takes room and nothing else.
extern "C" i64 sorted(const Outside* o, i64 count, const Object* objects, const bool* are_gradients, const u64* masks, Kind* kinds, i64* kind) {
  i64 known = 0, rank;
  for (i64 n = 0; n < count; n++) {
    Tensor* const x = held(*o, objects[n], are_gradients[n]);
    if (o->rank(x, &rank) || rank >= RANKS) {
      kind[n] = -1;
      continue;
    }
    Kind& mine = kinds[known];
    memcpy(mine.mask, masks + rank * WORDS, sizeof mine.mask);
    memcpy(mine.words, *x, sizeof mine.words);
    i64 k = known - 1;
    while (k >= 0 && k > known - FEW && (memcmp(kinds[k].mask, mine.mask, sizeof mine.mask) || !is_of(kinds[k], *x))) k--;
    kind[n] = k >= 0 && k > known - FEW ? k : known++;
  }
  return known;
}

// Whether all are as they were. The memory of a gradient may be another one; then it is written into its place among the pointers.
// `keep`, where there is such, holds the gradients from now on: see `room`.
extern "C" int hold(const Outside* o, i64 count, const Object* objects, const bool* are_gradients, const Facts* known, const Kind* kinds,
                    const i64* kind, Place* places, i64* pointers, Tensor* keep) {
  for (i64 n = 0; n < count; n++) {
    if (n + AHEAD < count) {
      const Place& later = places[n + AHEAD];
      send((char*)objects[n + AHEAD] + o->place, !are_gradients[n + AHEAD]), send(later.tensor, 3), send(later.memory, 1);
      if (later.more) send(later.more, 2);
    }
    Tensor* const x = held(*o, objects[n], are_gradients[n]);
    Facts now;
    if (*x == o->none) return 0;
    if (kind[n] >= 0 && is_of(kinds[kind[n]], *x)) {
      if (o->data(x, (void**)&now.data) || (!now.data && known[n].size)) return 0;
    } else {
      if (!told(*o, x, now)) return 0;
      if (now.type != known[n].type || now.device != known[n].device || now.shape != known[n].shape || now.size != known[n].size) return 0;
    }
    if (now.data != pointers[n] && !are_gradients[n]) return 0;
    if (keep && are_gradients[n]) keep[n] = o->none, o->assign(x, keep + n);
    pointers[n] = now.data;
    places[n] = {*x, ((void**)*x)[2], ((void**)*x)[3]};
  }
  return 1;
}

// The same; then some of the pointers are put where other tables want them.
extern "C" int hold_for(const Outside* o, i64 count, const Object* objects, const bool* are_gradients, const Facts* known, const Kind* kinds,
                        const i64* kind, Place* places, i64* pointers, i64 others, const i64* const* from, i64* const* to, Tensor* keep) {
  if (!hold(o, count, objects, are_gradients, known, kinds, kind, places, pointers, keep)) return 0;
  for (i64 n = 0; n < others; n++) *to[n] = *from[n];
  return 1;
}

// Ends what `hold` has begun to keep; what it did not come to is 0.
extern "C" void let_go(const Outside* o, i64 count, Tensor* keep) {
  for (i64 n = 0; n < count; n++)
    if (keep[n]) o->assign((Tensor*)&o->none, keep + n);
}

// Gradients of listed parameters and what is kept for them, at first nothing, change places: nobody counts one more or less.
extern "C" void exchange_gradients(const Outside* o, Object parameters, Tensor* keep) {
  for (i64 n = 0, count = o->list_size(parameters); n < count; n++) {
    if (n + AHEAD < count) send(*held(*o, o->list_item(parameters, n + AHEAD), false), 4);
    void* const x = *held(*o, o->list_item(parameters, n), false);
    if (!keep[n]) keep[n] = o->none;
    if (keep[n] == o->none && o->gradient(x) == o->none) continue;
    Tensor& mine = o->own_gradient(x);
    const Tensor other = mine;
    mine = keep[n];
    keep[n] = other;
  }
}

// Listed parameters have no gradients from now on.
extern "C" void drop_gradients(const Outside* o, Object parameters) {
  for (i64 n = 0; n < o->list_size(parameters); n++) {
    void* const x = *held(*o, o->list_item(parameters, n), false);
    if (o->gradient(x) != o->none) o->assign((Tensor*)&o->none, &o->own_gradient(x));
  }
}

// Room for gradients to be kept in, which the end of a capsule of Python gives back: that is no line of Python, and no interrupt cuts it.
struct Room { const Outside* o; i64 count; };
static void* (*inside)(Object, const char*);
extern "C" Tensor* room(const Outside* o, i64 count, void* (*inside_capsule)(Object, const char*)) {
  inside = inside_capsule;
  Room* const made = (Room*)__builtin_calloc(1, sizeof(Room) + count * sizeof(Tensor));
  if (!made) return 0;
  *made = {o, count};
  return (Tensor*)(made + 1);
}
extern "C" void end_room(Object capsule) {
  Tensor* const keep = (Tensor*)inside(capsule, 0);
  Room* const made = (Room*)keep - 1;
  let_go(made->o, made->count, keep);
  __builtin_free(made);
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

// Whether lists hold these objects, one list behind the other. Of those that are marked as not to be `looked` at by somebody else
// the gradients are there, or not, as they were.
extern "C" int listed(const Outside* o, i64 count, const Object* lists, const i64* sizes, const Object* objects, const bool* have_gradient,
                      const bool* looked) {
  for (i64 n = 0; n < count; n++) {
    if (o->list_size(lists[n]) != sizes[n]) return 0;
    for (i64 k = 0; k < sizes[n]; k++, objects++, have_gradient++, looked++) {
      if (o->list_item(lists[n], k) != *objects) return 0;
      if (!*looked && (*held(*o, *objects, true) != o->none) != *have_gradient) return 0;
    }
  }
  return 1;
}

// Whether dictionaries have not been changed since their versions were written down; `kept` writes them down.
static u64 version(const Outside& o, Object dictionary) { return ((const u64*)dictionary)[o.version]; }
extern "C" int unchanged(const Outside* o, i64 count, const Object* dictionaries, const u64* versions) {
  for (i64 n = 0; n < count; n++) {
    if (n + 2 * AHEAD < count) send(dictionaries[n + 2 * AHEAD], 1);
    if (version(*o, dictionaries[n]) != versions[n]) return 0;
  }
  return 1;
}

// Whether a dictionary of dictionaries holds these objects: for each of its keys this one, what stands there and what that holds.
extern "C" int kept(const Outside* o, i64 count, const Object* dictionaries, const Object* objects, const i64* sizes, u64* versions) {
  i64 place = 0, inner;
  Object key, value, name, x;
  if (o->dict_size(*dictionaries) != count - 1) return 0;
  *versions = version(*o, *dictionaries);
  for (i64 n = 1; n < count && o->next_item(*dictionaries, &place, &key, &value); n++) {
    if (*objects++ != key || dictionaries[n] != value || o->dict_size(value) != sizes[n - 1]) return 0;
    versions[n] = version(*o, value);
    for (inner = 0; o->next_item(value, &inner, &name, &x);)
      if (*objects++ != name || *objects++ != x) return 0;
  }
  return 1;
}

// Tells autograd that tensors have been written; those that do not count that are left alone.
extern "C" void told_written(void* const* given) {
  const Outside* const o = (const Outside*)given[0];
  const Object* const objects = (const Object*)given[2];
  for (i64 n = 0, count = (i64)given[1]; n < count; n++) {
    if (n + AHEAD < count) send(*(void* const* const*)((char*)objects[n + AHEAD] + o->place), 4);
    try {
      o->written(held(*o, objects[n], false));
    } catch (...) {
    }
  }
}
