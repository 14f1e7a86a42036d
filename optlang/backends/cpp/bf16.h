// The upper half of a float32, up or down by the draw. Eight elements share a draw: each takes a half word of it.
static inline u16 raised(float x, u16 drawn) {
  const u32 bits = bits_of(x), size = bits & 0x7fffffffu;
  return (u16)(size > 0x7f800000u ? 0x7fc0u : (bits + (size < 0x7f800000u ? drawn : 0)) >> 16);
}
// Blocks of a vector one after the other; those of wide vectors were in the order that shuffling undoes.
#ifdef WIDE
static inline Lanes shuffled() { return Lanes{0, 4, 1, 5, 2, 6, 3, 7}; }
static inline void put_blocks(const Blocks& x, int k, u16* to) {
  const __m512 ab = _mm512_shuffle_ps((__m512)x.a[k], (__m512)x.b[k], 0x88), cd = _mm512_shuffle_ps((__m512)x.c[k], (__m512)x.d[k], 0x88);
  _mm512_storeu_ps(to, _mm512_shuffle_ps(ab, cd, 0x88));
  _mm512_storeu_ps(to + 32, _mm512_shuffle_ps(ab, cd, 0xdd));
}
#elif defined(EIGHT)
static inline Lanes shuffled() { return Lanes{0, 2, 1, 3}; }
static inline void put_blocks(const Blocks& x, int k, u16* to) {
  const __m256 ab = _mm256_shuffle_ps((__m256)x.a[k], (__m256)x.b[k], 0x88), cd = _mm256_shuffle_ps((__m256)x.c[k], (__m256)x.d[k], 0x88);
  _mm256_storeu_ps((float*)to, _mm256_shuffle_ps(ab, cd, 0x88));
  _mm256_storeu_ps((float*)(to + 16), _mm256_shuffle_ps(ab, cd, 0xdd));
}
#else
static inline Lanes shuffled() { return in_order(); }
static inline void put_blocks(const Blocks& x, int k, u16* to) {
  u32 words[4 * LANES];
  for (i64 lane = 0; lane < LANES; lane++) {
    words[4 * lane] = (u32)x.a[k][lane];
    words[4 * lane + 1] = (u32)x.b[k][lane];
    words[4 * lane + 2] = (u32)x.c[k][lane];
    words[4 * lane + 3] = (u32)x.d[k][lane];
  }
  __builtin_memcpy(to, words, sizeof words);
}
#endif
// Draws for a block, 16 bits for each element.
static __attribute__((noinline)) void draw_halves(i64 low, const u32* counter, u32 place, u16* to) {
  for (i64 j = 0; j < BLOCK / 8; j += 4 * LANES) {
    const Blocks x = blocks<7>((u64)(low / 8 + j), shuffled(), counter, 0x80000000u + place);
    EACH put_blocks(x, k, to + 8 * (j + LANES * k));
  }
}
#ifdef WIDE
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
static inline u32 raise_all(const float* from, const u16* drawn, u16* to) {
  int largest = 0;
  #pragma omp simd reduction(max:largest)
  for (i64 k = 0; k < PART; k++) {
    const u32 bits = bits_of(from[k]);
    const int size = (int)(bits & 0x7fffffffu);
    largest = size > largest ? size : largest;
    to[k] = (u16)((bits + drawn[k]) >> 16);
  }
  return largest >= 0x7f800000;
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
  const bf16 *kept = (const bf16*)at[0] + low + part, *rest = (const bf16*)at[1] + low + part;
  for (i64 k = 0; k < count_of(part, size); k++) to[k] = load(kept[k]) + load(rest[k]);
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
