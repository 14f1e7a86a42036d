"""The C++ around the passes of a kernel. Words that begin with `@` are filled in by `source`; with rows and columns, by `lines`."""

ENTRY = """
static inline Tensor tensor_at(i64 n, const i64* sizes, char* const* pointers, const number* const* rows,
                               const u32* counters, const double* room) {
  return {sizes[n], pointers + n * TENSORS, rows[n], counters + 3 * n, room + n * SUMS, 0, 0, 0, nullptr};
}

// `starts`: the first chunk of each tensor, and behind the last one their number.
// `room`: SUMS numbers for each tensor, then for each chunk.
extern "C" void step(i64 count, const i64* sizes, const i64* starts, char* const* pointers, const number* const* rows,
                     const u32* counters, double* room, double* results, const void*, double*) {
  double* const partial = room + count * SUMS;
  #pragma omp parallel if (starts[count] > 3)
  for (i64 first = 0, last, n = 0; first < count; first = last) {
    last = wave_end(first, count, starts, WAVE);
@SMALL
@PASSES
  }
  for (i64 n = 0; n < count; n++) finish(tensor_at(n, sizes, pointers, rows, counters, room), results + n * RETURNED);
}
"""
PASS = """    #pragma omp for schedule(dynamic, AT_ONCE)
    for (i64 k = starts[first]; k < starts[last]; k++) {
      const i64 c = @PLACE;
      n = tensor_of(c, n, starts, count);
      @SKIPPED
      const i64 low = (c - starts[n]) * CHUNK, high = low + CHUNK < sizes[n] ? low + CHUNK : sizes[n];
      pass_@NUMBER(tensor_at(n, sizes, pointers, rows, counters, room), low, high, partial + c * SUMS);
    }"""
BACK = "starts[first] + starts[last] - 1 - k"  # what the pass before has touched last comes first
GATHER = """    #pragma omp for schedule(static)
    for (i64 x = first; x < last; x++) {
@EACH
    }"""
TOTAL = """      {
        double total = @START;
        for (i64 c = starts[x]; c < starts[x + 1]; c++) {
          const double y = partial[c * SUMS + @SUM];
          total = @ADD;
        }
        room[x * SUMS + @SUM] = total@SHARE;
      }"""
# A tensor of one chunk goes through all passes by itself: of many small ones, it takes longer to hand out chunks than to compute them.
SMALL = """    #pragma omp for schedule(dynamic, 4)
    for (i64 x = first; x < last; x++) {
      if (!is_small(starts, x)) continue;
      const Tensor tensor = tensor_at(x, sizes, pointers, rows, counters, room);
@EACH
    }
    if (!has_large(starts, first, last)) continue;"""

# With rows, columns and matrices.
LINED = """
static void whole(const All& all, i64 n, double* results) {
  const Shape& shape = all.shapes[n];
  const Tensor x = tensor_at(all, n);
  double *const partial = partial_of(all, n), *const beside = all.lines + shape.beside, *const sums = all.room + n * SUMS;
@ALONE
  finish(x, results + n * RETURNED);
}
extern "C" void step(i64 count, const i64* sizes, const i64* starts, char* const* pointers, const number* const* rows,
                     const u32* counters, double* room, double* results, const Shape* shapes, double* lines) {
  const All all = {count, sizes, starts, pointers, rows, counters, room, shapes, lines};
  #pragma omp parallel if (starts[count] > 3)
  for (i64 first = 0, last; first < count; first = last) {
    last = shapes[first].wave;
    const Wave wave = {first, last};
    all_small(all, wave, results, whole);
    if (!has_large(starts, first, last)) continue;
@STAGES
    all_finished(all, wave, results, finish);
  }
}
"""
