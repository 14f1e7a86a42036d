// Tensors of one chunk, and whether there are others among some.
static inline bool is_small(const i64* starts, i64 n) { return starts[n + 1] - starts[n] == 1; }
static inline bool has_large(const i64* starts, i64 first, i64 last) {
  while (first < last && is_small(starts, first)) first++;
  return first < last;
}
