// How codes are found. `borders`: the middles between levels, COUNT of them. ZERO: the code of 0 where levels below it mirror those
// above; else -1. EVEN: levels are, too. The rest says where a magnitude lies among levels: see `storage.lines` and `storage.bins`.
struct Codes {
  int count;
  float borders[256];
  float lines[2][8];
  float whole;
  alignas(64) float bins[2][16];
};

// NaN: nothing is sure.
static inline float factor_of(float scale, const Codes& codes) { return scale < 1e37f ? codes.whole / scale : NAN; }
static inline u64 all_unsure(float factor) { return factor == factor ? 0 : ~0ull; }
static inline u8 settled(float y, int near, const Codes& codes) {  // a code that is near to the one wanted
  int code = near < codes.count ? near : codes.count;
  while (code < codes.count && !(y < codes.borders[code])) code++;
  while (code > 0 && y < codes.borders[code - 1]) code--;
  return (u8)code;
}
const int NEAR = 0xfff8;  // places whose part has none of these bits are near to a border

#ifdef WIDE
const int LARGER = 11;  // of two magnitudes
// Places of multiplied magnitudes, in 65536ths: a code, and the part of a level above it; see `storage.bins`. A power's last 4 bits count.
static inline __m512 places_of(__m512 x, const Codes& codes) {
  const __m512i power = _mm512_srli_epi32(_mm512_castps_si512(x), 24);
  const __m512 slope = _mm512_permutexvar_ps(power, _mm512_load_ps(codes.bins[0]));
  const __m512 height = _mm512_permutexvar_ps(power, _mm512_load_ps(codes.bins[1]));
  const __m512 rise = _mm512_fmadd_ps(x, slope, _mm512_set1_ps(16 / 9.0f));  // the margin's share
  return _mm512_add_ps(_mm512_fmadd_ps(rise, _mm512_set1_ps(0.25f), height), _mm512_min_ps(rise, height));
}
static inline u64 each_near(const __m512i* place) {
  __mmask16 near[4];
  EACH near[k] = _mm512_testn_epi32_mask(place[k], _mm512_set1_epi32(NEAR));
  return joined(near);
}
static inline u64 any_near(const __m512i* place) {  // by words: the upper ones do not count
  const __m512i least = _mm512_min_epu16(_mm512_min_epu16(place[0], place[1]), _mm512_min_epu16(place[2], place[3]));
  return _mm512_testn_epi32_mask(least, _mm512_set1_epi32(NEAR));
}
// Codes of 64 numbers. Handed out: not 0 if some are too near to a border to be sure; with EACH_ONE, a bit for each such.
template <int ZERO, bool EVEN, bool EACH_ONE>
static inline __attribute__((always_inline)) u64 likely_codes(const float* from, __m512 factor, const Codes& codes, u8* to) {
  alignas(64) static const u8 thirds_then_seconds[64] = {
      2,  6,  10, 14, 18, 22, 26, 30, 34, 38, 42, 46, 50, 54, 58, 62, 66, 70, 74, 78, 82, 86, 90, 94, 98, 102, 106, 110, 114, 118, 122, 126,
      1,  5,  9,  13, 17, 21, 25, 29, 33, 37, 41, 45, 49, 53, 57, 61, 65, 69, 73, 77, 81, 85, 89, 93, 97, 101, 105, 109, 113, 117, 121, 125};
  const __m512 least = _mm512_set1_ps(0x1p-25f);  // below it all are nearest to 0, and bins come again
  __m512 x[4];
  __m512i place[4];
  __mmask16 negative[4];
  EACH x[k] = _mm512_loadu_ps(from + 16 * k);
  EACH negative[k] = _mm512_movepi32_mask(_mm512_castps_si512(x[k]));
  EACH x[k] = _mm512_mul_ps(x[k], factor);
  EACH x[k] = ZERO < 0 ? _mm512_max_ps(least, x[k]) : _mm512_range_ps(least, x[k], LARGER);
  if (EVEN) {  // one line for all, but that 0 has the code of the first level
    const __m512 slope = _mm512_set1_ps(codes.bins[0][0]), height = _mm512_set1_ps(codes.bins[1][0]);
    EACH x[k] = _mm512_max_ps(_mm512_set1_ps(1.5f * 65536), _mm512_fmadd_ps(x[k], slope, height));
  } else {
    EACH x[k] = places_of(x[k], codes);
  }
  EACH place[k] = _mm512_cvtps_epi32(x[k]);
  const __m512i order = _mm512_load_si512(thirds_then_seconds);
  const __m512i one = _mm512_permutex2var_epi8(place[0], order, place[1]), two = _mm512_permutex2var_epi8(place[2], order, place[3]);
  __m512i code = _mm512_inserti64x4(one, _mm512_castsi512_si256(two), 1);
  u64 unsure = EACH_ONE ? each_near(place) : any_near(place);
  if (!EVEN) {  // the first border of a decade lies a fifth of a level late
    const __m512i part = _mm512_shuffle_i64x2(one, two, 0xee), less = _mm512_add_epi8(code, _mm512_set1_epi8(-1));
    const __mmask64 first = _mm512_testn_epi8_mask(code, less);
    unsure |= _mm512_mask_cmpeq_epi8_mask(first, part, _mm512_set1_epi8(51));
    code = _mm512_mask_mov_epi8(code, _mm512_mask_cmplt_epu8_mask(first, part, _mm512_set1_epi8(51)), less);
  }
  const __m512i zero = _mm512_set1_epi8((char)ZERO), above = _mm512_add_epi8(code, zero);
  _mm512_storeu_si512(to, ZERO < 0 ? above : _mm512_mask_subs_epu8(above, joined(negative), zero, code));
  return unsure;
}
// What is too near to a border is divided and compared.
template <int ZERO, bool EVEN>
static void settle_codes(const float* from, float scale, const Codes& codes, u8* to) {
  const float factor = factor_of(scale, codes);
  u64 unsure = likely_codes<ZERO, EVEN, true>(from, _mm512_set1_ps(factor), codes, to) | all_unsure(factor);
  for (; unsure; unsure &= unsure - 1) {
    const int k = __builtin_ctzll(unsure);
    to[k] = settled(from[k] / scale, to[k], codes);
  }
}
template <int ZERO, bool EVEN> static inline u32 find_codes(const float* from, float factor, const Codes& codes, u8* to) {
  return likely_codes<ZERO, EVEN, false>(from, _mm512_set1_ps(factor), codes, to) != 0;
}
#else
#if defined(__FMA__) || defined(__ARM_FEATURE_FMA)
static inline float on_line(float x, float slope, float height) { return __builtin_fmaf(x, slope, height); }
#else
static inline float on_line(float x, float slope, float height) { return x * slope + height; }
#endif
// A code, and the part of a level above it, which is handed out. Masks, as compilers make branches of conditions, and all of them are taken.
template <int ZERO, bool EVEN> static inline int likely_code(float from, float factor, const Codes& codes, int& part) {
  const float x = (ZERO < 0 ? from > 0 ? from : 0 : math::abs(from)) * factor;
  float place = 257 * 65536;
  for (int line = 0; line < 7; line++) {
    const float other = on_line(x, codes.lines[0][line], codes.lines[1][line]);
    place = other < place ? other : place;
  }
  if (EVEN) place = place > 1.5f * 65536 ? place : 1.5f * 65536;
  place = x >= 2 ? on_line(x, codes.lines[0][7], codes.lines[1][7]) : place;
  const int found = (int)place, before = found >> 16, first = -(int)((before & (before - 1)) == 0);
  const int whole = EVEN ? found : found - (first & 13107);  // a fifth of a level
  part = whole & 0xffff;
  const int sign = ZERO < 0 ? 0 : (int)bits_of(from) >> 31, code = ZERO + (((whole >> 16) ^ sign) - sign);
  return ZERO < 0 || code > 0 ? code : 0;
}
template <int ZERO, bool EVEN> static inline u32 find_codes(const float* from, float factor, const Codes& codes, u8* to) {
  int found[PART], nearest = 0xffff;
  #pragma omp simd reduction(min:nearest)
  for (i64 k = 0; k < PART; k++) {
    int part;
    found[k] = likely_code<ZERO, EVEN>(from[k], factor, codes, part);
    nearest = part < nearest ? part : nearest;
  }
  #pragma omp simd
  for (i64 k = 0; k < PART; k++) to[k] = (u8)found[k];
  return !(nearest & NEAR);
}
template <int ZERO, bool EVEN> static void settle_codes(const float* from, float scale, const Codes& codes, u8* to) {
  const float factor = factor_of(scale, codes);
  for (i64 k = 0; k < PART; k++) {
    int part;
    to[k] = (u8)likely_code<ZERO, EVEN>(from[k], factor, codes, part);
    if (!(part & NEAR) || all_unsure(factor)) to[k] = settled(from[k] / scale, to[k], codes);
  }
}
#endif

template <int ZERO, bool EVEN, class Size> struct CloseBytes {
  u8* kept;
  const float* from;
  const Codes& codes;
  Size size;
  float scale, factor;
  u32 unsure = 0;

  CloseBytes(char* const* at, i64 low, Size size, const float* from, const Largest& largest, const Codes& codes)
      : kept((u8*)at[0] + low), from(from), codes(codes), size(size), scale(scale_of(largest.of(0, BLOCK))) {
    ((float*)at[1])[low / 256] = scale;
    factor = factor_of(scale, codes);
    unsure = (u32)all_unsure(factor);
  }
  void part(i64 part) {
    const i64 count = count_of(part, size);
    u8 found[PART];
    unsure |= find_codes<ZERO, EVEN>(from + part, factor, codes, count < PART ? found : kept + part) << part / PART;
    if (count < PART) __builtin_memcpy(kept + part, found, (u64)count);
  }
  COLD void settle() const {
    EACH_PART if (unsure >> part / PART & 1) {
      u8 found[PART];
      settle_codes<ZERO, EVEN>(from + part, scale, codes, found);
      __builtin_memcpy(kept + part, found, (u64)count_of(part, size));
    }
  }
};

#ifdef WIDE
static inline void pair(const u8* codes, u8* to) {
  const __m512i pairs = _mm512_maddubs_epi16(_mm512_loadu_si512(codes), _mm512_set1_epi16(0x0110));
  _mm256_storeu_si256((__m256i*)to, _mm512_cvtepi16_epi8(pairs));
}
#else
static inline void pair(const u8* codes, u8* to) {
  for (i64 k = 0; k < PART / 2; k++) to[k] = (u8)(codes[2 * k] << 4 | codes[2 * k + 1]);
}
#endif
template <int ZERO, bool EVEN, class Size> struct CloseHalves {
  u8* kept;
  const float* from;
  const Codes& codes;
  Size size;
  float scales[2], factors[2];
  u32 unsure = 0;

  CloseHalves(char* const* at, i64 low, Size size, const float* from, const Largest& largest, const Codes& codes)
      : kept((u8*)at[0] + low / 2), from(from), codes(codes), size(size) {
    for (i64 half = 0; half < 2; half++) {
      scales[half] = scale_of(largest.of(128 * half, 128 * half + 128));
      factors[half] = factor_of(scales[half], codes);
      unsure |= (u32)all_unsure(factors[half]);
      if (size > 128 * half) ((float*)at[1])[low / 128 + half] = scales[half];
    }
  }
  void put(i64 part, u8* found) const {
    const i64 count = count_of(part, size);
    u8 pairs[PART / 2];
    if (count < PART) found[count] = 0;  // beside the last one, if it is alone
    pair(found, count < PART ? pairs : kept + part / 2);
    if (count < PART) __builtin_memcpy(kept + part / 2, pairs, (u64)(count + 1) / 2);
  }
  void part(i64 part) {
    u8 found[PART];
    unsure |= find_codes<ZERO, EVEN>(from + part, factors[part / 128], codes, found) << part / PART;
    put(part, found);
  }
  COLD void settle() const {
    EACH_PART if (unsure >> part / PART & 1) {
      u8 found[PART];
      settle_codes<ZERO, EVEN>(from + part, scales[part / 128], codes, found);
      put(part, found);
    }
  }
};
