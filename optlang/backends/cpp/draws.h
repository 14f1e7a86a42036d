// The logarithms and cosines of the C library take one number at a time, and these as many as a vector holds: by their series, of
// which what is left out is less than rounding takes away.
static inline u64 bits_of(double x) {
  u64 bits;
  __builtin_memcpy(&bits, &x, 8);
  return bits;
}
static inline double of_bits(u64 bits) {
  double x;
  __builtin_memcpy(&x, &bits, 8);
  return x;
}
// Of a positive normal number, which is m * 2^k with m from sqrt(1/2) to sqrt(2): log(m) = 2 * atanh((m - 1) / (m + 1)).
static inline double logarithm(double x) {
  const u64 one = 1ull << 52, root = 0x3fe6a09e667f3bcdull;  // a step of k; sqrt(1/2)
  const u64 above = bits_of(x) - root + 1023 * one;  // k + 1023 in its upper bits
  const double k = of_bits(0x4330000000000000ull | above >> 52) - (0x1p52 + 1023);
  const double m = of_bits(bits_of(x) - (above & ~(one - 1)) + 1023 * one);
  const double s = (m - 1) / (m + 1), z = s * s;
  const double rest = z * (1. / 3 + z * (1. / 5 + z * (1. / 7 + z * (1. / 9 + z * (1. / 11
                    + z * (1. / 13 + z * (1. / 15 + z * (1. / 17 + z * (1. / 19 + z / 21)))))))));
  return k * 0.6931471805599453 + 2 * (s + s * rest);
}
// From 0 to 2 * pi: so many quarters of a turn, and an angle of at most an eighth. Of the two parts of pi / 2 the first times quarters is exact.
static inline double cosine(double x) {
  const double quarter = math::floor(x * 0.6366197723675814 + 0.5);
  const double angle = (x - quarter * 0x1.921fb544p0) - quarter * 0x1.0b4611a626331p-34, z = angle * angle;
  const double even = 1 - z / 2 * (1 - z / 12 * (1 - z / 30 * (1 - z / 56 * (1 - z / 90 * (1 - z / 132 * (1 - z / 182 * (1 - z / 240)))))));
  const double odd = 1 - z / 6 * (1 - z / 20 * (1 - z / 42 * (1 - z / 72 * (1 - z / 110 * (1 - z / 156 * (1 - z / 210 * (1 - z / 272)))))));
  const double found = quarter == 1 || quarter == 3 ? angle * odd : even;
  return quarter == 1 || quarter == 2 ? -found : found;
}

template <double kind(Words)> static inline double drawn(Words x) { return kind(x); }
template <> inline double drawn<draw_exponential>(Words x) { return -logarithm(unit(x.a)); }
template <> inline double drawn<draw_normal>(Words x) {
  return math::sqrt(-2.0 * logarithm(unit(x.a))) * cosine(6.283185307179586 * unit(x.b));
}

// Draws for elements `low` to `high` - 1, at most a block of them: not inlined, as compilers take long for ten of them in one loop.
const i64 DRAWN = 256;
template <double kind(Words), class number>
static __attribute__((noinline)) void draw(i64 low, i64 high, const u32* counter, u32 site, number* to) {
  const u32 t = counter[0], seed = counter[1], stream = counter[2];
  #pragma omp simd
  for (i64 i = low; i < high; i++) to[i - low] = (number)drawn<kind>(philox((u64)i, t, site, seed, stream));
}
