// Values per model: states of one number each, and what parameters contribute to such. See singles.py.
struct Single { void* memory; i64 type; double* value; };  // type: 0 float, 1 double, 2 bool

extern "C" void fetched(i64 count, const Single* some) {
  for (i64 n = 0; n < count; n++) {
    const Single& x = some[n];
    *x.value = x.type == 0 ? (double)*(const float*)x.memory : x.type == 1 ? *(const double*)x.memory : (double)*(const bool*)x.memory;
  }
}
extern "C" void stored(i64 count, const Single* some) {
  for (i64 n = 0; n < count; n++) {
    const Single& x = some[n];
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
extern "C" void reduced(i64 count, i64 columns, const double* x, const i64* ways, const double* shares, double* const* to) {
  for (i64 k = 0; k < columns; k++)
    *to[k] = (ways[k] == 0 ? 0.0 + total(x + k, count, columns) : extreme(x + k, count, columns, ways[k] == 1)) / shares[k];
}

// A kernel with what it is given: one argument takes Python less time than ten.
typedef void (*Step)(void*, void*, void*, void*, void*, void*, void*, void*, void*, void*);
extern "C" void called(Step step, void* const* x) { step(x[0], x[1], x[2], x[3], x[4], x[5], x[6], x[7], x[8], x[9]); }
