// How codes are found. `borders`: the middles between levels, COUNT of them. ZERO: the code of 0 where levels below it mirror those
// above; else -1. EVEN: levels are, and one line is for all bins. The rest says where a magnitude lies among levels: see `storage.whole`
// and `storage.bins`, which come twice, as the larger of vectors look up among sixteen.
struct Codes {
  int count;
  float borders[256];
  float whole;
  alignas(64) float bins[3][16];
};
// The number of a bin is that of the bits of a magnitude, times BINS; what is added leaves it in the last bits. LEAST: just above the
// beginning of the first bin, where all that is smaller is nearest to 0, too.
const float BINS = 1 / 28060000.0f, TO_LAST_BITS = 0x1.8p23f, LEAST = 0x1.b7p-19f;
const float LOWEST = 0.5f * 65536;  // a place whose code is that of the first level
const int NEAR = 0xfff8;  // places whose part has none of these bits are near to a border

// NaN: nothing is sure.
static inline float factor_of(float scale, const Codes& codes) { return scale < 1e37f ? codes.whole / scale : NAN; }
static inline u64 all_unsure(float factor) { return factor == factor ? 0 : ~0ull; }
static inline u8 settled(float y, int near, const Codes& codes) {  // a code that is near to the one wanted
  int code = near < codes.count ? near : codes.count;
  while (code < codes.count && !(y < codes.borders[code])) code++;
  while (code > 0 && y < codes.borders[code - 1]) code--;
  return (u8)code;
}

// Below, `places_of` says where multiplied magnitudes are, in 65536ths, so that the third byte is a code and the others are the part of
// a level above it; `put_codes` makes codes of the places of GROUP numbers; `each_near` and `any_near` say which are too near to a border.
#ifdef WIDE
const i64 GROUP = 64;
const int LARGER = 11;  // of two magnitudes
typedef __m512 Floats;
typedef __m512i Places;
static inline Floats splat(float x) { return _mm512_set1_ps(x); }
static inline Floats of_bin(const float* table, __m512 bin) { return _mm512_permutexvar_ps(_mm512_castps_si512(bin), _mm512_load_ps(table)); }
template <int ZERO, bool EVEN> static inline Places places_of(const float* from, Floats factor, const Codes& codes) {
  const Floats y = _mm512_mul_ps(_mm512_loadu_ps(from), factor), least = splat(LEAST);
  const Floats x = ZERO < 0 ? _mm512_max_ps(y, least) : _mm512_range_ps(y, least, LARGER);
  if (EVEN) return _mm512_cvtps_epi32(_mm512_max_ps(_mm512_fmadd_ps(x, splat(codes.bins[0][0]), splat(codes.bins[1][0])), splat(LOWEST)));
  const Floats bin = _mm512_fmadd_ps(_mm512_cvtepi32_ps(_mm512_castps_si512(x)), splat(BINS), splat(TO_LAST_BITS));
  const Floats line = _mm512_fmadd_ps(x, of_bin(codes.bins[0], bin), of_bin(codes.bins[1], bin));
  return _mm512_cvtps_epi32(_mm512_min_ps(line, _mm512_fmadd_ps(line, splat(2), of_bin(codes.bins[2], bin))));
}
static inline u64 each_near(const Places* place) {
  __mmask16 near[4];
  EACH near[k] = _mm512_testn_epi32_mask(place[k], _mm512_set1_epi32(NEAR));
  return joined(near);
}
static inline u64 any_near(const Places* place) {  // by words: the upper ones do not count
  const __m512i least = _mm512_min_epu16(_mm512_min_epu16(place[0], place[1]), _mm512_min_epu16(place[2], place[3]));
  return _mm512_testn_epi32_mask(least, _mm512_set1_epi32(NEAR));
}
template <int ZERO> static inline void put_codes(const float* from, const Places* place, u8* to) {
  alignas(64) static const u8 thirds[64] = {2,  6,  10, 14, 18, 22, 26, 30, 34, 38, 42,  46,  50,  54,  58,  62,
                                            66, 70, 74, 78, 82, 86, 90, 94, 98, 102, 106, 110, 114, 118, 122, 126};
  const __m512i order = _mm512_load_si512(thirds);
  const __m512i one = _mm512_permutex2var_epi8(place[0], order, place[1]), two = _mm512_permutex2var_epi8(place[2], order, place[3]);
  __m512i code = _mm512_inserti64x4(one, _mm512_castsi512_si256(two), 1);
  if (ZERO >= 0) {
    const __m512i zero = _mm512_set1_epi8((char)ZERO);
    __mmask16 negative[4];
    EACH negative[k] = _mm512_movepi32_mask(_mm512_loadu_si512(from + 16 * k));
    code = _mm512_mask_subs_epu8(_mm512_add_epi8(code, zero), joined(negative), zero, code);
  }
  _mm512_storeu_si512(to, code);
}
#else
#ifdef EIGHT
typedef float Floats __attribute__((vector_size(32)));
typedef int Places __attribute__((vector_size(32)));
static inline Floats on_line(Floats x, Floats slope, Floats height) { return _mm256_fmadd_ps(x, slope, height); }
static inline Floats larger(Floats x, Floats y) { return _mm256_max_ps(x, y); }
static inline Floats of_bin(const float* table, Places bin) { return _mm256_permutevar8x32_ps(_mm256_load_ps(table), (__m256i)bin); }
#else
typedef float Floats __attribute__((vector_size(16)));
typedef int Places __attribute__((vector_size(16)));
static inline Floats on_line(Floats x, Floats slope, Floats height) { return x * slope + height; }
static inline Floats larger(Floats x, Floats y) { return x > y ? x : y; }
static inline Floats of_bin(const float* table, Places bin) {
  bin &= 7;
#ifdef __aarch64__
  const uint8x16_t at = (uint8x16_t)(bin * 0x04040404 + 0x03020100);
  return (Floats)vqtbl2q_u8((uint8x16x2_t){{vld1q_u8((const u8*)table), vld1q_u8((const u8*)(table + 4))}}, at);
#else
  return Floats{table[bin[0]], table[bin[1]], table[bin[2]], table[bin[3]]};
#endif
}
#endif
const i64 LANE = sizeof(Floats) / 4, GROUP = 4 * LANE;
static inline Floats splat(float x) { return Floats{} + x; }
template <int ZERO, bool EVEN> static inline Places places_of(const float* from, Floats factor, const Codes& codes) {
  Floats y;
  __builtin_memcpy(&y, from, sizeof y);
  y *= factor;
  const Floats size = ZERO < 0 ? y : (Floats)((Places)y & 0x7fffffff), x = larger(size, splat(LEAST));
  if (EVEN) {
    const Floats place = on_line(x, splat(codes.bins[0][0]), splat(codes.bins[1][0]));
    return __builtin_convertvector(larger(place, splat(LOWEST)), Places);
  }
  const Places bin = (Places)on_line(__builtin_convertvector((Places)x, Floats), splat(BINS), splat(TO_LAST_BITS));
  const Floats line = on_line(x, of_bin(codes.bins[0], bin), of_bin(codes.bins[1], bin));
  const Floats other = on_line(line, splat(2), of_bin(codes.bins[2], bin));
  return __builtin_convertvector(line < other ? line : other, Places);
}
static inline u64 each_near(const Places* place) {
  u64 near = 0;
  for (i64 k = 0; k < GROUP; k++) near |= (u64)!(place[k / LANE][k % LANE] & NEAR) << k;
  return near;
}
#ifdef EIGHT
static inline u64 any_near(const Places* place) {  // by words: the upper ones do not count
  __m256i least = (__m256i)place[0];
  for (i64 k = 1; k < 4; k++) least = _mm256_min_epu16(least, (__m256i)place[k]);
  const Places near = ((Places)least & NEAR) == 0;
  return (u32)_mm256_movemask_epi8((__m256i)near);
}
template <int ZERO> static inline void put_codes(const float* from, const Places* place, u8* to) {
  __m256i whole[4], bits[4];
  EACH whole[k] = _mm256_srli_epi32((__m256i)place[k], 16);
  __m256i code = _mm256_packus_epi16(_mm256_packus_epi32(whole[0], whole[1]), _mm256_packus_epi32(whole[2], whole[3]));
  if (ZERO >= 0) {
    EACH bits[k] = _mm256_loadu_si256((const __m256i*)(from + 8 * k));
    const __m256i signs = _mm256_packs_epi16(_mm256_packs_epi32(bits[0], bits[1]), _mm256_packs_epi32(bits[2], bits[3]));
    const __m256i zero = _mm256_set1_epi8((char)ZERO);
    code = _mm256_blendv_epi8(_mm256_add_epi8(code, zero), _mm256_subs_epu8(zero, code), signs);
  }
  _mm256_storeu_si256((__m256i*)to, _mm256_permutevar8x32_epi32(code, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7)));
}
#else
static inline u64 any_near(const Places* place) {
  Places found = {};
  EACH found |= (place[k] & NEAR) == 0;
  return (u64)(found[0] | found[1] | found[2] | found[3]) != 0;
}
template <int ZERO> static inline void put_codes(const float* from, const Places* place, u8* to) {
  int found[GROUP];
  EACH {
    Places code = place[k] >> 16;
    if (ZERO >= 0) {
      Places sign;
      __builtin_memcpy(&sign, from + LANE * k, sizeof sign);
      sign >>= 31;
      code = (code ^ sign) - sign + ZERO;
      code &= ~(code >> 31);
    }
    __builtin_memcpy(found + LANE * k, &code, sizeof code);
  }
  #pragma omp simd
  for (i64 k = 0; k < GROUP; k++) to[k] = (u8)found[k];
}
#endif
#endif
// Codes of a part of a block. Handed out: not 0 if some are not sure.
template <int ZERO, bool EVEN> static inline u32 find_codes(const float* from, float factor, const Codes& codes, u8* to) {
  u64 unsure = 0;
  for (i64 low = 0; low < PART; low += GROUP) {
    Places place[4];
    EACH place[k] = places_of<ZERO, EVEN>(from + low + GROUP / 4 * k, splat(factor), codes);
    put_codes<ZERO>(from + low, place, to + low);
    unsure |= any_near(place);
  }
  return unsure != 0;
}
// What is too near to a border is divided and compared.
template <int ZERO, bool EVEN> static void settle_codes(const float* from, float scale, const Codes& codes, u8* to) {
  const float factor = factor_of(scale, codes);
  for (i64 low = 0; low < PART; low += GROUP) {
    Places place[4];
    EACH place[k] = places_of<ZERO, EVEN>(from + low + GROUP / 4 * k, splat(factor), codes);
    put_codes<ZERO>(from + low, place, to + low);
    for (u64 unsure = each_near(place) | all_unsure(factor); unsure; unsure &= unsure - 1) {
      const i64 k = low + __builtin_ctzll(unsure);
      if (k < low + GROUP) to[k] = settled(from[k] / scale, to[k], codes);
    }
  }
}

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
