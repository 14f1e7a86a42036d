// Numbers of 8 bits, e4m3.

static inline u8 to_fp8(float x) {  // e4m3: to nearest, halves to even
  const u32 bits = bits_of(x), sign = (bits >> 24) & 0x80u, size = bits & 0x7fffffffu;
  const float small = float_of(size) + 16384.0f;  // below 2^-6 the sum has the right last bit
  const u32 normal = (size - (120u << 23) + 0x7ffffu + ((size >> 20) & 1u)) >> 20;
  const u32 found = size < (121u << 23) ? bits_of(small) - (141u << 23) : normal;
  return (u8)(sign | (size > 0x7f800000u || found > 0x7eu ? 0x7fu : found));
}
#ifdef WIDE
// By a product instead of a quotient: what comes nearer to a border than both differ is handed out.
static inline __attribute__((always_inline)) u64 likely_fp8(const float* from, __m512 factor, u8* to) {
  alignas(64) static const u8 fourths[64] = {3,  7,  11, 15, 19, 23, 27, 31, 35, 39, 43,  47,  51,  55,  59,  63,
                                                  67, 71, 75, 79, 83, 87, 91, 95, 99, 103, 107, 111, 115, 119, 123, 127};
  const __m512 least = _mm512_set1_ps(0x1p-6f);  // with 3 bits behind the first: below it, steps are those above it
  const __m512i half = _mm512_set1_epi32((1 << 19) + 4 - (120 << 23)), eight = _mm512_set1_epi32(8 << 20);
  __m512 x[4], size[4];
  __m512i code[4];  // from bit 20 on
  __mmask16 small[4], near[4];
  EACH x[k] = _mm512_mul_ps(_mm512_loadu_ps(from + 16 * k), factor);
  EACH size[k] = _mm512_abs_ps(x[k]);
  EACH small[k] = _mm512_cmp_ps_mask(size[k], least, _CMP_LT_OQ);
  EACH size[k] = _mm512_mask_add_ps(size[k], small[k], size[k], least);
  EACH code[k] = _mm512_add_epi32(_mm512_castps_si512(size[k]), half);
  EACH near[k] = _mm512_testn_epi32_mask(code[k], _mm512_set1_epi32(0xffff8));
  EACH code[k] = _mm512_slli_epi32(_mm512_mask_sub_epi32(code[k], small[k], code[k], eight), 4);
  EACH code[k] = _mm512_ternarylogic_epi32(code[k], _mm512_castps_si512(x[k]), _mm512_set1_epi32((int)0x80000000), 0xf8);  // a | (b & c)
  const __m512i order = _mm512_load_si512(fourths);
  const __m512i one = _mm512_permutex2var_epi8(code[0], order, code[1]), two = _mm512_permutex2var_epi8(code[2], order, code[3]);
  _mm512_storeu_si512(to, _mm512_inserti64x4(one, _mm512_castsi512_si256(two), 1));
  return joined(near);
}
static inline u32 part_fp8(const float* from, float scale, float factor, u8* to) {
  return likely_fp8(from, _mm512_set1_ps(factor), to) != 0 || !is_finite(scale);
}
#else
static inline u32 part_fp8(const float* from, float scale, float, u8* to) {
  #pragma omp simd
  for (i64 k = 0; k < PART; k++) to[k] = to_fp8(from[k] / scale);
  return 0;
}
#endif
template <class Size> struct CloseFp8 {
  u8* kept;
  const float* from;
  Size size;
  float scale, factor;
  u32 unsure = 0;

  CloseFp8(char* const* at, i64 low, Size size, const float* from, const Largest& largest)
      : kept((u8*)at[0] + low), from(from), size(size), scale(scale_of(largest.of(0, BLOCK)) / 448.0f), factor(1 / scale) {
    ((float*)at[1])[low / 256] = scale;
  }
  void part(i64 part) {
    const i64 count = count_of(part, size);
    u8 found[PART];
    unsure |= part_fp8(from + part, scale, factor, count < PART ? found : kept + part) << part / PART;
    if (count < PART) __builtin_memcpy(kept + part, found, (u64)count);
  }
  COLD void settle() const {
    EACH_PART if (unsure >> part / PART & 1)
      for (i64 k = part; k < part + count_of(part, size); k++) kept[k] = to_fp8(from[k] / scale);
  }
};
template <class Size> static inline auto close_fp8(char* const* at, i64 low, Size size, const float* from, const Largest& largest) {
  return CloseFp8<Size>(at, low, size, from, largest);
}
