// Draws for elements `low` to `high` - 1, at most a block of them: not inlined, as compilers take long for ten of them in one loop.
const i64 DRAWN = 256;
template <double kind(Words), class number>
static __attribute__((noinline)) void draw(i64 low, i64 high, const u32* counter, u32 site, number* to) {
  const u32 t = counter[0], seed = counter[1], stream = counter[2];
  #pragma omp simd
  for (i64 i = low; i < high; i++) to[i - low] = (number)kind(philox((u64)i, t, site, seed, stream));
}
