// How kernels with rows and columns go over all tensors; see `lines` and `layout`.
// `lines` and `beside`: where values of a tensor are in the room of its wave, which ends before tensor `wave`.
struct Shape { i64 batch, rows, cols, per, many, chunks, lines, beside, wave; };
// Rows `low` to `high` - 1 of matrices `first` to `last` - 1; `split`: not all rows of a matrix.
struct Chunk { i64 first, last, low, high; bool split; };
struct All {
  i64 count;
  const i64 *sizes, *starts;
  char* const* pointers;
  const number* const* rows;
  const u32* counters;
  double* room;  // SUMS numbers for each tensor, then for each chunk
  const Shape* shapes;
  double* lines;
};

// Values per row, and what lies behind so many for each row.
static inline number* rows_of(const Tensor& x, i64 before) { return (number*)x.lines + before * x.batch * x.rows; }
static inline double* behind_rows(const Tensor& x, i64 count) {
  return x.lines + (count * x.batch * x.rows * (i64)sizeof(number) + (i64)sizeof(double) - 1) / (i64)sizeof(double);
}
// A strip of short rows has at most so many elements, as have draws; rows of fewer than SHORT fill no vector of any processor.
const i64 STRIP = 256, SHORT = 64 / sizeof(number);
static inline i64 least(i64 a, i64 b) { return a < b ? a : b; }
static inline i64 rows_of_strip(const Tensor& x) {
  const i64 rows = STRIP / (x.cols ? x.cols : 1);
  return rows < SHORT ? rows : rows / SHORT * SHORT;  // which fill vectors
}
struct Row {
  i64 row, matrix, place;  // counted over all matrices; its matrix, and its place there
  void next(const Tensor& x) { row++; if (++place == x.rows) place = 0, matrix++; }
  void move(const Tensor& x, i64 to) {
    place += to - row;
    row = to;
    while (place >= x.rows) place -= x.rows, matrix++;
  }
};
// A value of a row, for each of its elements in whole vectors: what is behind them, the next row writes over.
static inline void tell(number value, i64 cols, number* to) {
  for (i64 c = 0; c < cols; c += SHORT) {
    #pragma omp simd
    for (i64 k = 0; k < SHORT; k++) to[c + k] = value;
  }
}
static inline i64 parts_of(const Shape& shape) { return shape.per < shape.rows ? (shape.rows + shape.per - 1) / shape.per : 1; }
static inline Chunk chunk_at(const Shape& shape, i64 place) {
  const i64 parts = parts_of(shape), low = place % parts * shape.per, first = place / parts * shape.many;
  const i64 last = first + shape.many, high = low + shape.per;
  return {first, last < shape.batch ? last : shape.batch, low, high < shape.rows ? high : shape.rows, parts > 1};
}
static inline double* partial_of(const All& all, i64 n) { return all.room + (all.count + all.starts[n]) * SUMS; }
static inline Tensor tensor_at(const All& all, i64 n) {
  const Shape& shape = all.shapes[n];
  return {all.sizes[n], all.pointers + n * TENSORS, all.rows[n], all.counters + 3 * n, all.room + n * SUMS,
          shape.batch, shape.rows, shape.cols, all.lines + shape.lines};
}

// Some tensors that go through all passes together. What follows is for all threads of a team.
struct Wave { i64 first, last; };
template <class F> static void all_small(const All& all, Wave wave, double* results, F whole) {
  #pragma omp for schedule(dynamic, 4)
  for (i64 n = wave.first; n < wave.last; n++) if (is_small(all.starts, n)) whole(all, n, results);
}
// `back`: from the last chunk to the first, as what was touched last is in the cache.
template <class F> static void all_chunks(const All& all, Wave wave, bool back, F pass) {
  const i64 begin = all.starts[wave.first], end = all.starts[wave.last];
  i64 n = wave.first;
  #pragma omp for schedule(dynamic)
  for (i64 k = begin; k < end; k++) {
    const i64 c = back ? begin + end - 1 - k : k;
    n = tensor_of(c, n, all.starts, all.count);
    if (is_small(all.starts, n)) continue;
    const Shape& shape = all.shapes[n];
    const i64 place = c - all.starts[n];
    double* const partial = partial_of(all, n) + place * SUMS;
    pass(tensor_at(all, n), chunk_at(shape, place), partial, all.lines + shape.beside + place * BESIDE * shape.cols);
  }
}
template <class F> static void all_tensors(const All& all, Wave wave, F gather) {
  #pragma omp for schedule(dynamic)
  for (i64 n = wave.first; n < wave.last; n++) {
    if (is_small(all.starts, n)) continue;
    const Shape& shape = all.shapes[n];
    gather(tensor_at(all, n), shape, partial_of(all, n), all.lines + shape.beside, all.room + n * SUMS);
  }
}
// When all passes are over, before the next wave takes the room.
template <class F> static void all_finished(const All& all, Wave wave, double* results, F finish) {
  #pragma omp for schedule(dynamic)
  for (i64 n = wave.first; n < wave.last; n++) if (!is_small(all.starts, n)) finish(tensor_at(all, n), results + n * RETURNED);
}

// What chunks have left is added in their order.
template <class F> static double of_chunks(const double* partial, i64 chunks, double start, double share, F add) {
  double total = start;
  for (i64 c = 0; c < chunks; c++) total = add(total, partial[c * SUMS]);
  return total / share;
}
template <class F> static void of_matrices(
    const Tensor& x, const Shape& shape, const double* partial, double* to, double start, double share, F add) {
  const i64 parts = parts_of(shape);
  if (parts > 1)
    for (i64 b = 0; b < x.batch; b++) to[b] = of_chunks(partial + b * parts * SUMS, parts, start, share, add);
}
template <class F> static void of_columns(
    const Tensor& x, const Shape& shape, const double* beside, double* to, double start, double share, F add) {
  const i64 parts = parts_of(shape);
  if (parts > 1)
    for (i64 b = 0; b < x.batch; b++) {
      double* const total = to + b * x.cols;
      for (i64 c = 0; c < x.cols; c++) total[c] = start;
      for (i64 part = 0; part < parts; part++) {
        const double* const from = beside + (b * parts + part) * BESIDE * x.cols;
        for (i64 c = 0; c < x.cols; c++) total[c] = add(total[c], from[c]);
      }
      for (i64 c = 0; c < x.cols; c++) total[c] /= share;
    }
}
