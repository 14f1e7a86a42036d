// A draw per model: one at a time, with the logarithms and cosines of the C library, as the host has them.
// Philox4x32-10 (Salmon et al. 2011): the same words as everywhere in optlang.
struct Words { u32 a, b, c, d; };
static inline Words philox(u64 index, u32 t, u32 site, u32 seed, u32 stream) {
  u32 a = (u32)index, b = (u32)(index >> 32), c = t, d = site, k = seed, m = stream;
  #pragma GCC unroll 10
  for (int round = 0; round < 10; round++) {
    u64 first = (u64)0xD2511F53u * a, second = (u64)0xCD9E8D57u * c;
    a = (u32)(second >> 32) ^ b ^ k;
    c = (u32)(first >> 32) ^ d ^ m;
    b = (u32)second;
    d = (u32)first;
    k += 0x9E3779B9u;
    m += 0xBB67AE85u;
  }
  return {a, b, c, d};
}
static inline double unit(u32 word) { return ((double)(word >> 8) + 0.5) * 0x1p-24; }
static inline double draw_uniform(Words x) { return unit(x.a); }
static inline double draw_rademacher(Words x) { return 1.0 - 2.0 * (double)(x.a >> 31); }
static inline double draw_exponential(Words x) { return -math::log(unit(x.a)); }
static inline double draw_normal(Words x) {
  return math::sqrt(-2.0 * math::log(unit(x.a))) * math::cos(6.283185307179586 * unit(x.b));
}
