// Numbers of 8 bits, e4m3.

static inline u8 to_fp8(float x) {  // e4m3: to nearest, halves to even
  const u32 bits = bits_of(x), sign = (bits >> 24) & 0x80u, size = bits & 0x7fffffffu;
  const float small = float_of(size) + 16384.0f;  // below 2^-6 the sum has the right last bit
  const u32 normal = (size - (120u << 23) + 0x7ffffu + ((size >> 20) & 1u)) >> 20;
  const u32 found = size < (121u << 23) ? bits_of(small) - (141u << 23) : normal;
  return (u8)(sign | (size > 0x7f800000u || found > 0x7eu ? 0x7fu : found));
}
// Below, by a product instead of a quotient: what comes nearer to a border than both differ is handed out. A code begins at bit 20.
const int HALF_FP8 = (1 << 19) + 4 - (120 << 23), NEAR_FP8 = 0xffff8;
#ifdef WIDE
static inline __attribute__((always_inline)) u64 likely_fp8(const float* from, __m512 factor, u8* to) {
  alignas(64) static const u8 fourths[64] = {3,  7,  11, 15, 19, 23, 27, 31, 35, 39, 43,  47,  51,  55,  59,  63,
                                                  67, 71, 75, 79, 83, 87, 91, 95, 99, 103, 107, 111, 115, 119, 123, 127};
  const __m512 least = _mm512_set1_ps(0x1p-6f);  // with 3 bits behind the first: below it, steps are those above it
  const __m512i half = _mm512_set1_epi32(HALF_FP8), eight = _mm512_set1_epi32(8 << 20);
  __m512 x[4], size[4];
  __m512i code[4];
  __mmask16 small[4], near[4];
  EACH x[k] = _mm512_mul_ps(_mm512_loadu_ps(from + 16 * k), factor);
  EACH size[k] = _mm512_abs_ps(x[k]);
  EACH small[k] = _mm512_cmp_ps_mask(size[k], least, _CMP_LT_OQ);
  EACH size[k] = _mm512_mask_add_ps(size[k], small[k], size[k], least);
  EACH code[k] = _mm512_add_epi32(_mm512_castps_si512(size[k]), half);
  EACH near[k] = _mm512_testn_epi32_mask(code[k], _mm512_set1_epi32(NEAR_FP8));
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
#elif defined(EIGHT)
static inline u32 part_fp8(const float* from, float scale, float factor, u8* to) {
  const __m256i size_bits = _mm256_set1_epi32(0x7fffffff), least = _mm256_set1_epi32(121 << 23), sign = _mm256_set1_epi8((char)0x80);
  const __m256 half = _mm256_castsi256_ps(_mm256_set1_epi32(HALF_FP8)), small_half = _mm256_castsi256_ps(_mm256_set1_epi32(HALF_FP8 - (8 << 20)));
  __m256i above = size_bits;
  for (i64 low = 0; low < PART; low += 32) {
    __m256i x[4], size[4], small[4], code[4];
    EACH x[k] = _mm256_castps_si256(_mm256_mul_ps(_mm256_loadu_ps(from + low + 8 * k), _mm256_set1_ps(factor)));
    EACH size[k] = _mm256_and_si256(x[k], size_bits);
    EACH small[k] = _mm256_cmpgt_epi32(least, size[k]);
    EACH size[k] = _mm256_castps_si256(_mm256_add_ps(_mm256_castsi256_ps(size[k]), _mm256_castsi256_ps(_mm256_and_si256(small[k], least))));
    EACH code[k] = _mm256_add_epi32(size[k], _mm256_castps_si256(_mm256_blendv_ps(half, small_half, _mm256_castsi256_ps(small[k]))));
    EACH above = _mm256_min_epi32(above, _mm256_and_si256(code[k], _mm256_set1_epi32(NEAR_FP8)));
    EACH code[k] = _mm256_srli_epi32(code[k], 20);
    const __m256i codes = _mm256_packus_epi16(_mm256_packus_epi32(code[0], code[1]), _mm256_packus_epi32(code[2], code[3]));
    const __m256i signs = _mm256_packs_epi16(_mm256_packs_epi32(x[0], x[1]), _mm256_packs_epi32(x[2], x[3]));
    const __m256i found = _mm256_or_si256(codes, _mm256_and_si256(signs, sign));
    _mm256_storeu_si256((__m256i*)(to + low), _mm256_permutevar8x32_epi32(found, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7)));
  }
  return !_mm256_testz_si256(_mm256_cmpeq_epi32(above, _mm256_setzero_si256()), sign) || !is_finite(scale);
}
#else
static inline u32 part_fp8(const float* from, float scale, float factor, u8* to) {
  u32 least = ~0u;  // how far above a border
  #pragma omp simd reduction(min:least)
  for (i64 k = 0; k < PART; k++) {
    const u32 bits = bits_of(from[k] * factor), size = bits & 0x7fffffffu, small = size < (121u << 23) ? ~0u : 0;
    const u32 place = bits_of(float_of(size) + float_of(small & (121u << 23))) + HALF_FP8, above = place & NEAR_FP8;
    least = above < least ? above : least;
    to[k] = (u8)((place - (small & (8u << 20))) >> 20 | (bits >> 24 & 0x80u));
  }
  return least == 0 || !is_finite(scale);
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
