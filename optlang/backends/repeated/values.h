// Values per model: states of one number each, and what parameters contribute to such. See singles.py. What can be done in one go with
// other work is given one piece of memory, of words: see `Work` in calls.py.
typedef void* const* Words;
struct Single { void* memory; i64 type; double* value; };  // type: 0 float, 1 double, 2 bool

extern "C" void fetched(Words given) {
  for (i64 n = 0; n < (i64)given[0]; n++) {
    const Single& x = ((const Single*)given[1])[n];
    *x.value = x.type == 0 ? (double)*(const float*)x.memory : x.type == 1 ? *(const double*)x.memory : (double)*(const bool*)x.memory;
  }
}
extern "C" void stored(Words given) {
  for (i64 n = 0; n < (i64)given[0]; n++) {
    const Single& x = ((const Single*)given[1])[n];
    if (x.type == 0) *(float*)x.memory = (float)*x.value;
    else if (x.type == 1) *(double*)x.memory = *x.value;
    else *(bool*)x.memory = *x.value != 0;
  }
}

// The sum of every `step`-th number in the order in which NumPy adds, so that both find the same bits.
static double total(const double* x, i64 count, i64 step) {
  if (count < 8) {
    double sum = -0.0;
    for (i64 n = 0; n < count; n++) sum += x[n * step];
    return sum;
  }
  if (count > 128) {
    const i64 half = count / 2 - count / 2 % 8;
    return total(x, half, step) + total(x + half * step, count - half, step);
  }
  double lanes[8];
  i64 n = 8;
  for (i64 k = 0; k < 8; k++) lanes[k] = x[k * step];
  for (; n < count - count % 8; n += 8)
    for (i64 k = 0; k < 8; k++) lanes[k] += x[(n + k) * step];
  double sum = ((lanes[0] + lanes[1]) + (lanes[2] + lanes[3])) + ((lanes[4] + lanes[5]) + (lanes[6] + lanes[7]));
  for (; n < count; n++) sum += x[n * step];
  return sum;
}
// The largest or least; no number where one of them is none.
static double extreme(const double* x, i64 count, i64 step, bool largest) {
  double found = largest ? -__builtin_inf() : __builtin_inf();
  for (i64 n = 0; n < count; n++) {
    const double y = x[n * step];
    if (y != y) return y;
    if (largest ? y > found : y < found) found = y;
  }
  return found;
}
// Of a table of contributions column by column; ways: 0 sum, 1 largest, 2 least.
extern "C" void reduced(Words given) {
  const i64 count = (i64)given[0], columns = (i64)given[1], *ways = (const i64*)given[3];
  const double *x = (const double*)given[2], *shares = (const double*)given[4];
  double* const* to = (double* const*)given[5];
  for (i64 k = 0; k < columns; k++)
    *to[k] = (ways[k] == 0 ? 0.0 + total(x + k, count, columns) : extreme(x + k, count, columns, ways[k] == 1)) / shares[k];
}

// The same numbers at the end of each row of a table.
extern "C" void copied(Words given) {
  const i64 rows = (i64)given[0], width = (i64)given[1], count = (i64)given[2];
  double* const to = (double*)given[4];
  for (i64 row = 1; row <= rows; row++) memcpy(to + row * width - count, given[3], count * sizeof(double));
}

// Tensors of parameters of one shape, side by side in one place for each column of their table; and back, where columns are `written`.
extern "C" void gathered(Words given) {
  const i64 count = (i64)given[0], columns = (i64)given[1], *sizes = (const i64*)given[3];
  char *const* from = (char* const*)given[2], *const* to = (char* const*)given[4];
  for (i64 n = 0; n < count; n++, from += columns)
    for (i64 k = 0; k < columns; k++) memcpy(to[k] + n * sizes[k], from[k], sizes[k]);
}
extern "C" void scattered(Words given) {
  const i64 count = (i64)given[0], columns = (i64)given[1], *sizes = (const i64*)given[3];
  char *const* to = (char* const*)given[2], *const* from = (char* const*)given[4];
  const bool* const written = (const bool*)given[5];
  for (i64 n = 0; n < count; n++, to += columns)
    for (i64 k = 0; k < columns; k++)
      if (written[k]) memcpy(to[k], from[k] + n * sizes[k], sizes[k]);
}

static void exchange(char* __restrict x, char* __restrict y, i64 size) {
  for (i64 k = 0; k < size; k++) {
    const char between = x[k];
    x[k] = y[k], y[k] = between;
  }
}
// Pieces of memory change places with as many that lie one behind the other; then it is said that they have, or that they no longer do.
extern "C" void exchanged(Words given) {
  const i64 count = (i64)given[0], *starts = (const i64*)given[2], *sizes = (const i64*)given[3];
  char *const *some = (char* const*)given[1], *const others = (char*)given[5];
  if (count && starts[count - 1] > 1 << 22) {
    #pragma omp parallel for schedule(dynamic)
    for (i64 n = 0; n < count; n++) exchange(some[n], others + starts[n], sizes[n]);
  } else {
    for (i64 n = 0; n < count; n++) exchange(some[n], others + starts[n], sizes[n]);
  }
  bool& are_exchanged = *(bool*)given[4];
  are_exchanged = !are_exchanged;
}

// Pointers are put where tables want them, all of them so much further on.
extern "C" void placed(Words given) {
  const i64 *const *from = (const i64* const*)given[1];
  i64* const* to = (i64* const*)given[2];
  for (i64 n = 0; n < (i64)given[0]; n++) *to[n] = *from[n] + (i64)given[3];
}

// Tensors of one number, one behind the other, count a step more.
extern "C" void counted_on(Words given) {
  float* const numbers = (float*)given[1];
  for (i64 n = 0; n < (i64)given[0]; n++) numbers[n] += 1;
}

// A kernel with what it is given.
typedef void (*Step)(void*, void*, void*, void*, void*, void*, void*, void*, void*, void*);
extern "C" void called(Words x) { ((Step)x[0])(x[1], x[2], x[3], x[4], x[5], x[6], x[7], x[8], x[9], x[10]); }

typedef void (*Work)(Words);
struct Begun { Work work; Words given; };
extern "C" void in_order(Words given) {
  const Begun* const some = (const Begun*)given[1];
  for (i64 n = 0; n < (i64)given[0]; n++) some[n].work(some[n].given);
}
