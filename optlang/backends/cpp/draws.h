// The logarithms and cosines of the C library take one number at a time, and these as many as a vector holds: by their series, of
// which what is left out is less than rounding takes away.
// Of a positive normal number, which is m * 2^k with m from sqrt(1/2) to sqrt(2): log(m) = 2 * atanh((m - 1) / (m + 1)).
static inline double logarithm(double x) {
  const u64 one = 1ull << 52, root = 0x3fe6a09e667f3bcdull;  // a step of k; sqrt(1/2)
  const u64 above = bits_of(x) - root + 1023 * one;  // k + 1023 in its upper bits
  const double k = of_bits(0x4330000000000000ull | above >> 52) - (0x1p52 + 1023);
  const double m = of_bits(bits_of(x) - (above & ~(one - 1)) + 1023 * one);
  const double s = (m - 1) / (m + 1), z = s * s;
  const double rest = z * (1. / 3 + z * (1. / 5 + z * (1. / 7 + z * (1. / 9 + z * (1. / 11
                    + z * (1. / 13 + z * (1. / 15 + z * (1. / 17 + z * (1. / 19 + z * (1. / 21))))))))));
  return k * 0.6931471805599453 + 2 * (s + s * rest);
}
// From 0 to 2 * pi: so many quarters of a turn, and an angle of at most an eighth. Of the two parts of pi / 2 the first times quarters is exact.
static inline double cosine(double x) {
  const double quarter = math::floor(x * 0.6366197723675814 + 0.5);
  const double angle = (x - quarter * 0x1.921fb544p0) - quarter * 0x1.0b4611a626331p-34, z = angle * angle;
  const double even = 1 - z * (1. / 2 - z * (1. / 24 - z * (1. / 720 - z * (1. / 40320 - z * (1. / 3628800
                    - z * (1. / 479001600 - z * (1. / 87178291200 - z * (1. / 20922789888000))))))));
  const double odd = 1 - z * (1. / 6 - z * (1. / 120 - z * (1. / 5040 - z * (1. / 362880 - z * (1. / 39916800
                   - z * (1. / 6227020800 - z * (1. / 1307674368000 - z * (1. / 355687428096000))))))));
  const double found = quarter == 1 || quarter == 3 ? angle * odd : even;
  return quarter == 1 || quarter == 2 ? -found : found;
}

// Draws from the first two words of a block.
static inline double unit(u32 word) { return ((double)(word >> 8) + 0.5) * 0x1p-24; }
static inline double draw_uniform(u32 a, u32) { return unit(a); }
static inline double draw_rademacher(u32 a, u32) { return 1.0 - 2.0 * (double)(a >> 31); }
static inline double draw_exponential(u32 a, u32) { return -logarithm(unit(a)); }
static inline double draw_normal(u32 a, u32 b) { return math::sqrt(-2.0 * logarithm(unit(a))) * cosine(6.283185307179586 * unit(b)); }

// Draws for elements `low` to `high` - 1, at most a block of them: not inlined, as compilers take long for ten of them in one loop.
const i64 DRAWN = 256;
template <double kind(u32, u32), class number>
static __attribute__((noinline)) void draw(i64 low, i64 high, const u32* counter, u32 site, number* to) {
  alignas(64) u32 a[DRAWN], b[DRAWN];
  for (i64 i = 0; i < high - low; i += 4 * LANES) {
    const Blocks x = blocks<10>((u64)(low + i), in_order(), counter, site);
    put(x.a, a + i);
    put(x.b, b + i);
  }
  #pragma omp simd
  for (i64 i = 0; i < high - low; i++) to[i] = (number)kind(a[i], b[i]);
}
