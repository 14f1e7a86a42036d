// The upper half of a float32, up or down by the draw. Eight elements share a draw: each takes a half word of it.
static inline u16 raised(float x, u16 drawn) {
  const u32 bits = bits_of(x), size = bits & 0x7fffffffu;
  return (u16)(size > 0x7f800000u ? 0x7fc0u : (bits + (size < 0x7f800000u ? drawn : 0)) >> 16);
}
#ifdef WIDE
// Draws for a block, 16 bits for each element.
static inline void draw_halves(i64 low, const u32* counter, u32 place, u16* to) {
  const Lanes order = {0, 4, 1, 5, 2, 6, 3, 7};  // unpacking undoes it
  const Blocks x = blocks((u64)(low / 8), order, counter, 0x80000000u + place);
  EACH {
    const Lanes upper = Lanes{} + 0xffffffff00000000u, ab = (x.a[k] & ~upper) | x.b[k] << 32, cd = (x.c[k] & ~upper) | x.d[k] << 32;
    _mm512_storeu_si512(to + 64 * k, _mm512_unpacklo_epi64((__m512i)ab, (__m512i)cd));
    _mm512_storeu_si512(to + 64 * k + 32, _mm512_unpackhi_epi64((__m512i)ab, (__m512i)cd));
  }
}
static inline u32 raise_all(const float* from, const u16* drawn, u16* to) {  // whether some are not finite
  alignas(64) u16 odd[32];
  for (int k = 0; k < 32; k++) odd[k] = (u16)(2 * k + 1);
  const __m512i upper = _mm512_load_si512(odd), lower = _mm512_sub_epi16(upper, _mm512_set1_epi16(1));
  const __m512i infinite = _mm512_set1_epi16(0x7f80);
  __mmask32 other = 0;
  for (i64 k = 0; k < PART; k += 32) {
    const __m512i a = _mm512_loadu_si512(from + k), b = _mm512_loadu_si512(from + k + 16), draws = _mm512_loadu_si512(drawn + k);
    const __m512i high = _mm512_permutex2var_epi16(a, upper, b), low = _mm512_permutex2var_epi16(a, lower, b);
    const __m512i left = _mm512_andnot_si512(low, _mm512_set1_epi16(-1));  // what may be added to it before it carries
    const __mmask32 carries = _mm512_cmpgt_epu16_mask(draws, left);
    _mm512_storeu_si512(to + k, _mm512_mask_add_epi16(high, carries, high, _mm512_set1_epi16(1)));
    other |= _mm512_cmpeq_epi16_mask(_mm512_and_si512(high, infinite), infinite);
  }
  return other != 0;
}
#else
static inline void draw_halves(i64 low, const u32* counter, u32 place, u16* to) {
  u32 words[4][BLOCK / 8];
  for (i64 j = 0; j < BLOCK / 8; j += 4 * LANES) {
    const Blocks x = blocks((u64)(low / 8 + j), in_order(), counter, 0x80000000u + place);
    put(x.a, words[0] + j);
    put(x.b, words[1] + j);
    put(x.c, words[2] + j);
    put(x.d, words[3] + j);
  }
  for (i64 k = 0; k < BLOCK / 2; k++) {
    const u32 word = words[k % 4][k / 4];
    to[2 * k] = (u16)word;
    to[2 * k + 1] = (u16)(word >> 16);
  }
}
static inline u32 raise_all(const float* from, const u16* drawn, u16* to) {
  #pragma omp simd
  for (i64 k = 0; k < PART; k++) to[k] = raised(from[k], drawn[k]);
  return 0;
}
#endif

template <class Size> struct CloseHalf {
  u16* kept;
  const float* from;
  Size size;
  u32 unsure = 0;
  alignas(64) u16 drawn[BLOCK];

  CloseHalf(char* const* at, i64 low, Size size, float* from, const u32* counter, u32 place)
      : kept((u16*)at[0] + low), from(from), size(size) {
    for (i64 k = size; k < BLOCK; k++) from[k] = 0;
    draw_halves(low, counter, place, drawn);
  }
  void part(i64 part) {
    const i64 count = count_of(part, size);
    u16 found[PART];
    unsure |= raise_all(from + part, drawn + part, count < PART ? found : kept + part) << part / PART;
    if (count < PART) __builtin_memcpy(kept + part, found, 2 * (u64)count);
  }
  COLD void settle() const {
    EACH_PART if (unsure >> part / PART & 1)
      for (i64 k = part; k < part + count_of(part, size); k++) kept[k] = raised(from[k], drawn[k]);
  }
};
template <class Size> static inline auto close_bf16(char* const* at, i64 low, Size size, float* from, const u32* counter, u32 place) {
  return CloseHalf<Size>(at, low, size, from, counter, place);
}
template <class Size> static inline auto close_stochastic(char* const* at, i64 low, Size size, float* from, const u32* counter, u32 place) {
  return CloseHalf<Size>(at, low, size, from, counter, place);
}

template <class Size> static inline void open_compensated(char* const* at, i64 low, i64 part, Size size, float* to) {
  const bf16 *kept = (const bf16*)at[0] + low, *rest = (const bf16*)at[1] + low;
  for (i64 k = part; k < part + count_of(part, size); k++) to[k] = load(kept[k]) + load(rest[k]);
}
template <class Size> struct CloseCompensated {
  bf16 *kept, *beside;
  const float* from;
  Size size;
  static const u32 unsure = 0;

  CloseCompensated(char* const* at, i64 low, Size size, const float* from, const u32*, u32)
      : kept((bf16*)at[0] + low), beside((bf16*)at[1] + low), from(from), size(size) {}
  void part(i64 part) const {
    for (i64 k = part; k < part + count_of(part, size); k++) {
      store(kept[k], from[k]);
      const float left = from[k] - load(kept[k]);
      store(beside[k], is_finite(left) ? left : 0.0f);
    }
  }
  void settle() const {}
};
template <class Size>
static inline auto close_compensated(char* const* at, i64 low, Size size, const float* from, const u32* counter, u32 place) {
  return CloseCompensated<Size>(at, low, size, from, counter, place);
}
