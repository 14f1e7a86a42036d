// Opening and closing of blocks. `at`: pointers to codes and scales of the whole tensor; elements low to high - 1 are meant.
// Buffers hold BLOCK numbers whatever the block has: loops of a known length become vectors without a rest.
#if defined(__AVX512VBMI__) && defined(__AVX512BW__) && defined(__AVX512DQ__)
#define WIDE
#include <immintrin.h>
#define EACH _Pragma("GCC unroll 4") for (int k = 0; k < 4; k++)
#endif

const i64 BLOCK = 256;
#ifdef WIDE
const i64 PART = 64;
#else
const i64 PART = 128;
#endif
#define EACH_PART _Pragma("GCC unroll 1") for (i64 part = 0; part < BLOCK; part += PART)
struct Whole {  // the size of a block that is full, as a constant
  constexpr operator i64() const { return BLOCK; }
};
static inline i64 part_end(i64 low, i64 part, Whole) { return low + part + PART; }
static inline i64 part_end(i64 low, i64 part, i64 size) { return low + (part + PART < size ? part + PART : size); }
static const auto nothing = [](i64) {};  // what is done beside closing, for each part of a block
const float SMALLEST_SCALE = 1e-12f;

static inline u32 bits_of(float x) { u32 bits; std::memcpy(&bits, &x, 4); return bits; }
static inline float float_of(u32 bits) { float x; std::memcpy(&x, &bits, 4); return x; }

// Up to 256 numbers, and their bytes one by one: the first of all, then the second of all.
struct Table {
  float values[256];
  alignas(64) uint8_t planes[4][256];
};

#ifdef WIDE
static inline __m512i bytes_at(const uint8_t* plane, __m512i places, __mmask64 upper) {
  const __m512i* part = (const __m512i*)plane;
  return _mm512_mask_blend_epi8(upper, _mm512_permutex2var_epi8(part[0], places, part[1]), _mm512_permutex2var_epi8(part[2], places, part[3]));
}
// 64 at a time: where the processor permutes bytes, four permutations are quicker than 64 reads.
static inline void look_up(const Table& table, const uint8_t* places, i64 count, float* to) {
  const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);  // unpacking undoes it
  for (i64 k = 0; k < count; k += 64) {
    const __m512i at = _mm512_permutexvar_epi32(order, _mm512_loadu_si512(places + k));
    const __mmask64 upper = _mm512_movepi8_mask(at);
    const __m512i a = bytes_at(table.planes[0], at, upper), b = bytes_at(table.planes[1], at, upper);
    const __m512i c = bytes_at(table.planes[2], at, upper), d = bytes_at(table.planes[3], at, upper);
    const __m512i ab = _mm512_unpacklo_epi8(a, b), cd = _mm512_unpacklo_epi8(c, d);
    const __m512i AB = _mm512_unpackhi_epi8(a, b), CD = _mm512_unpackhi_epi8(c, d);
    _mm512_storeu_si512(to + k, _mm512_unpacklo_epi16(ab, cd));
    _mm512_storeu_si512(to + k + 16, _mm512_unpackhi_epi16(ab, cd));
    _mm512_storeu_si512(to + k + 32, _mm512_unpacklo_epi16(AB, CD));
    _mm512_storeu_si512(to + k + 48, _mm512_unpackhi_epi16(AB, CD));
  }
}
#else
static inline void look_up(const Table& table, const uint8_t* places, i64 count, float* to) {
  #pragma omp simd
  for (i64 k = 0; k < count; k++) to[k] = table.values[places[k]];
}
#endif

static inline void fill(float* from, i64 count) {
  for (i64 k = count; k < BLOCK; k++) from[k] = 0;
}
// The scale of SIZE numbers: their largest magnitude; NaN if there is one, since its bits are the largest.
template <i64 SIZE> static inline float scale_of(const float* from) {
  u32 found = 0;
  #pragma omp simd reduction(max:found)
  for (i64 k = 0; k < SIZE; k++) {
    const u32 bits = bits_of(from[k]) & 0x7fffffffu;
    found = bits > found ? bits : found;
  }
  const float largest = float_of(found);
  return largest < SMALLEST_SCALE ? SMALLEST_SCALE : largest;
}

// How codes are found. `borders`: the middles between levels, COUNT of them. ZERO: the code of 0 where levels below it mirror those
// above; else -1. EVEN: levels are, too. The rest says where a magnitude lies among levels: see `storage.lines` and `storage.bins`.
struct Codes {
  int count;
  float borders[256];
  float lines[2][8];
  float whole;
  alignas(64) float bins[4][32];
};

#ifdef WIDE
static inline __m512 line_at(const float* slopes, const float* heights, __m512i power, __m512 x) {  // a power's last 5 bits count
  const __m512 slope = _mm512_permutex2var_ps(_mm512_load_ps(slopes), power, _mm512_load_ps(slopes + 16));
  return _mm512_fmadd_ps(x, slope, _mm512_permutex2var_ps(_mm512_load_ps(heights), power, _mm512_load_ps(heights + 16)));
}
static inline __mmask64 joined(const __mmask16* parts) {
  return _mm512_kunpackd(_mm512_kunpackw(parts[3], parts[2]), _mm512_kunpackw(parts[1], parts[0]));
}
// Codes of 64 numbers; those that are too near to a border to be sure are handed out.
template <int ZERO, bool EVEN> static inline u64 likely_codes(const float* from, __m512 factor, const Codes& codes, uint8_t* to) {
  alignas(64) static const uint8_t thirds_then_seconds[64] = {
      2,  6,  10, 14, 18, 22, 26, 30, 34, 38, 42, 46, 50, 54, 58, 62, 66, 70, 74, 78, 82, 86, 90, 94, 98, 102, 106, 110, 114, 118, 122, 126,
      1,  5,  9,  13, 17, 21, 25, 29, 33, 37, 41, 45, 49, 53, 57, 61, 65, 69, 73, 77, 81, 85, 89, 93, 97, 101, 105, 109, 113, 117, 121, 125};
  __m512 x[4], low[4];
  __m512i power[4], place[4];  // places in 65536ths: a code, and the part of a level above it
  __mmask16 negative[4], near[4];
  EACH {
    x[k] = _mm512_loadu_ps(from + 16 * k);
    negative[k] = _mm512_movepi32_mask(_mm512_castps_si512(x[k]));
    x[k] = ZERO < 0 ? _mm512_max_ps(_mm512_setzero_ps(), x[k]) : _mm512_abs_ps(x[k]);
    x[k] = _mm512_fmadd_ps(x[k], factor, _mm512_set1_ps(0x1p-25f));
  }
  EACH power[k] = _mm512_srli_epi32(_mm512_castps_si512(x[k]), 23);
  EACH low[k] = line_at(codes.bins[0], codes.bins[1], power[k], x[k]);
  EACH x[k] = line_at(codes.bins[2], codes.bins[3], power[k], x[k]);
  EACH place[k] = _mm512_cvtps_epi32(_mm512_min_ps(low[k], x[k]));
  EACH near[k] = _mm512_testn_epi32_mask(place[k], _mm512_set1_epi32(0xfff0));
  const __m512i order = _mm512_load_si512(thirds_then_seconds);
  const __m512i one = _mm512_permutex2var_epi8(place[0], order, place[1]), two = _mm512_permutex2var_epi8(place[2], order, place[3]);
  __m512i code = _mm512_inserti64x4(one, _mm512_castsi512_si256(two), 1);
  u64 unsure = joined(near);
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
static __attribute__((noinline, cold)) void settle(const float* from, float scale, const Codes& codes, uint8_t* to, u64 unsure) {
  for (; unsure; unsure &= unsure - 1) {
    const int k = __builtin_ctzll(unsure);
    const float y = from[k] / scale;
    int code = to[k] < codes.count ? to[k] : codes.count;
    while (code < codes.count && !(y < codes.borders[code])) code++;
    while (code > 0 && y < codes.borders[code - 1]) code--;
    to[k] = (uint8_t)code;
  }
}
template <int ZERO, bool EVEN> static inline void find_codes(const float* from, float scale, const Codes& codes, uint8_t* to) {
  const __m512 factor = _mm512_set1_ps(scale < 1e37f ? codes.whole / scale : NAN);  // NaN: nothing is sure
  const u64 unsure = likely_codes<ZERO, EVEN>(from, factor, codes, to);
  if (__builtin_expect(unsure != 0, 0)) settle(from, scale, codes, to, unsure);
}
#else
template <int ZERO, bool> static inline void find_codes(const float* from, float scale, const Codes& codes, uint8_t* to) {
  float y[PART];
  #pragma omp simd
  for (i64 k = 0; k < PART; k++) {
    y[k] = from[k] / scale;
    const float x = ZERO < 0 ? y[k] : std::abs(y[k]);
    float lowest = codes.lines[1][7];  // of slope 0
    for (int line = 0; line < 7; line++) {
      const float height = x * codes.lines[0][line] + codes.lines[1][line];
      lowest = height < lowest ? height : lowest;
    }
    int near = (int)(lowest > 0 ? lowest : 0);
    if (ZERO >= 0) near = y[k] < 0 ? ZERO - 1 - near : ZERO + near;
    to[k] = (uint8_t)(near < 0 ? 0 : near);
  }
  #pragma omp simd
  for (i64 k = 0; k < PART; k++) to[k] = (uint8_t)(to[k] + !(y[k] < codes.borders[to[k]]));
}
#endif

static inline void open_bytes(char* const* at, i64 low, i64 high, float* to, const Table& levels) {
  const float scale = ((const float*)at[1])[low / 256];
  uint8_t codes[BLOCK] = {0};
  const uint8_t* stored = (const uint8_t*)at[0] + low;
  if (high - low < BLOCK) stored = (const uint8_t*)std::memcpy(codes, stored, (size_t)(high - low));
  look_up(levels, stored, BLOCK, to);
  #pragma omp simd
  for (i64 k = 0; k < BLOCK; k++) to[k] *= scale;
}
template <int ZERO, bool EVEN, class Rest>
static inline void close_bytes(char* const* at, i64 low, i64 high, float* from, const Codes& codes, Rest rest) {
  fill(from, high - low);
  const float scale = scale_of<BLOCK>(from);
  ((float*)at[1])[low / 256] = scale;
  uint8_t found[BLOCK];
  uint8_t *const kept = (uint8_t*)at[0] + low, *const to = high - low < BLOCK ? found : kept;
  EACH_PART {
    find_codes<ZERO, EVEN>(from + part, scale, codes, to + part);
    if (part < high - low) rest(part);
  }
  if (high - low < BLOCK) std::memcpy(kept, found, (size_t)(high - low));
}

// Two blocks of 128 in each of ours; two codes a byte, the first in its upper half.
static inline void open_halves(char* const* at, i64 low, i64 high, float* to, const Table& levels) {
  const float* scales = (const float*)at[1] + low / 128;
  uint8_t pairs[BLOCK / 2] = {0}, codes[BLOCK];
  std::memcpy(pairs, (const uint8_t*)at[0] + low / 2, (size_t)(high - low + 1) / 2);
  for (i64 k = 0; k < BLOCK / 2; k++) {
    codes[2 * k] = pairs[k] >> 4;
    codes[2 * k + 1] = pairs[k] & 15;
  }
  look_up(levels, codes, BLOCK, to);
  for (i64 start = 0; low + start < high; start += 128) {
    const float scale = scales[start / 128];
    #pragma omp simd
    for (i64 k = start; k < start + 128; k++) to[k] *= scale;
  }
}
template <int ZERO, bool EVEN, class Rest>
static inline void close_halves(char* const* at, i64 low, i64 high, float* from, const Codes& codes, Rest rest) {
  uint8_t found[BLOCK], pairs[BLOCK / 2];
  fill(from, high - low);
  float scales[2];
  for (i64 half = 0; half < 2; half++) {
    scales[half] = scale_of<128>(from + 128 * half);
    if (low + 128 * half < high) ((float*)at[1])[low / 128 + half] = scales[half];
  }
  EACH_PART {
    find_codes<ZERO, EVEN>(from + part, scales[part / 128], codes, found + part);
    if (part < high - low) rest(part);
  }
  if (high - low < BLOCK) found[high - low] = 0;  // beside the last one, if it is alone
  for (i64 k = 0; k < BLOCK / 2; k++) pairs[k] = (uint8_t)(found[2 * k] << 4 | found[2 * k + 1]);
  std::memcpy((uint8_t*)at[0] + low / 2, pairs, (size_t)(high - low + 1) / 2);
}

static inline uint8_t to_fp8(float x) {  // e4m3: to nearest, halves to even
  const u32 bits = bits_of(x), sign = (bits >> 24) & 0x80u, size = bits & 0x7fffffffu;
  const float small = float_of(size) + 16384.0f;  // below 2^-6 the sum has the right last bit
  const u32 normal = (size - (120u << 23) + 0x7ffffu + ((size >> 20) & 1u)) >> 20;
  const u32 found = size < (121u << 23) ? bits_of(small) - (141u << 23) : normal;
  return (uint8_t)(sign | (size > 0x7f800000u || found > 0x7eu ? 0x7fu : found));
}
#ifdef WIDE
static inline __m512i sixteen_fp8(__m512 x) {  // but for NaN as `to_fp8`; a step is the last bit of a sum with `far`
  const __m512i bits = _mm512_castps_si512(x), size = _mm512_castps_si512(_mm512_abs_ps(x));
  const __m512i power = _mm512_and_si512(_mm512_max_epu32(size, _mm512_set1_epi32(121 << 23)), _mm512_set1_epi32(0x7f800000));
  const __m512i far = _mm512_add_epi32(power, _mm512_set1_epi32(20 << 23));
  const __m512i sum = _mm512_castps_si512(_mm512_add_ps(_mm512_castsi512_ps(size), _mm512_castsi512_ps(far)));
  const __m512i first = _mm512_sub_epi32(_mm512_srli_epi32(power, 20), _mm512_set1_epi32(121 << 3));
  const __m512i code = _mm512_add_epi32(_mm512_sub_epi32(sum, far), first);
  return _mm512_ternarylogic_epi32(code, _mm512_srli_epi32(bits, 24), _mm512_set1_epi32(0x80), 0xf8);  // a | (b & c)
}
static inline void part_fp8(const float* from, float scale, uint8_t* to) {
  if (!is_finite(scale)) {
    for (i64 k = 0; k < PART; k++) to[k] = to_fp8(from[k] / scale);
    return;
  }
  const __m512 divisor = _mm512_set1_ps(scale);
  const auto codes = [&](i64 k) { return _mm512_cvtepi32_epi8(sixteen_fp8(_mm512_div_ps(_mm512_loadu_ps(from + k), divisor))); };
  for (i64 k = 0; k < PART; k += 16) _mm_storeu_si128((__m128i*)(to + k), codes(k));
}
#else
static inline void part_fp8(const float* from, float scale, uint8_t* to) {
  #pragma omp simd
  for (i64 k = 0; k < PART; k++) to[k] = to_fp8(from[k] / scale);
}
#endif
template <class Rest> static inline void close_fp8(char* const* at, i64 low, i64 high, float* from, const u32*, u32, Rest rest) {
  fill(from, high - low);
  const float scale = scale_of<BLOCK>(from) / 448.0f;
  ((float*)at[1])[low / 256] = scale;
  uint8_t found[BLOCK];
  uint8_t *const kept = (uint8_t*)at[0] + low, *const to = high - low < BLOCK ? found : kept;
  EACH_PART {
    part_fp8(from + part, scale, to + part);
    if (part < high - low) rest(part);
  }
  if (high - low < BLOCK) std::memcpy(kept, found, (size_t)(high - low));
}

// The upper half of a float32, up or down by the draw. Eight elements share a draw: each takes a half word of it.
static inline void open_bf16(char* const* at, i64 low, i64 high, float* to) {
  const bf16* kept = (const bf16*)at[0] + low;
  #pragma omp simd
  for (i64 k = 0; k < high - low; k++) to[k] = load(kept[k]);
}
#ifdef WIDE
// Eight draws at a time, a word in the lower half of each lane: what stands above it never reaches a result. Four such side by
// side: each waits for itself.
static inline void draw_halves(i64 low, const u32* counter, u32 place, uint16_t* to) {
  const __m512i order = _mm512_setr_epi64(0, 4, 1, 5, 2, 6, 3, 7);  // unpacking undoes it
  const __m512i left = _mm512_set1_epi64(0xD2511F53), right = _mm512_set1_epi64(0xCD9E8D57);
  __m512i a[4], b[4], c[4], d[4];
  EACH {
    a[k] = _mm512_add_epi64(_mm512_set1_epi64(low / 8 + 8 * k), order);
    b[k] = _mm512_srli_epi64(a[k], 32);
    c[k] = _mm512_set1_epi64(counter[0]);
    d[k] = _mm512_set1_epi64(0x80000000u + place);
  }
  u32 key = counter[1], more = counter[2];
  #pragma GCC unroll 10
  for (int round = 0; round < 10; round++) {
    const __m512i one = _mm512_set1_epi64(key), other = _mm512_set1_epi64(more);
    __m512i first[4], second[4];
    EACH first[k] = _mm512_mul_epu32(a[k], left);
    EACH second[k] = _mm512_mul_epu32(c[k], right);
    EACH a[k] = _mm512_ternarylogic_epi64(_mm512_srli_epi64(second[k], 32), b[k], one, 0x96);  // exclusive or of three
    EACH c[k] = _mm512_ternarylogic_epi64(_mm512_srli_epi64(first[k], 32), d[k], other, 0x96);
    EACH b[k] = second[k];
    EACH d[k] = first[k];
    key += 0x9E3779B9u;
    more += 0xBB67AE85u;
  }
  EACH {
    const __m512i ab = _mm512_mask_blend_epi32(0xAAAA, a[k], _mm512_slli_epi64(b[k], 32));
    const __m512i cd = _mm512_mask_blend_epi32(0xAAAA, c[k], _mm512_slli_epi64(d[k], 32));
    _mm512_storeu_si512(to + 64 * k, _mm512_unpacklo_epi64(ab, cd));
    _mm512_storeu_si512(to + 64 * k + 32, _mm512_unpackhi_epi64(ab, cd));
  }
}
#else
static inline void draw_halves(i64 low, const u32* counter, u32 place, uint16_t* to) {
  u32 words[BLOCK / 2];
  const u32 t = counter[0], seed = counter[1], stream = counter[2];
  #pragma omp simd
  for (i64 j = 0; j < BLOCK / 8; j++) {
    const Words x = philox((u64)(low / 8 + j), t, 0x80000000u + place, seed, stream);
    words[4 * j] = x.a;
    words[4 * j + 1] = x.b;
    words[4 * j + 2] = x.c;
    words[4 * j + 3] = x.d;
  }
  #pragma omp simd
  for (i64 k = 0; k < BLOCK / 2; k++) {
    to[2 * k] = (uint16_t)words[k];
    to[2 * k + 1] = (uint16_t)(words[k] >> 16);
  }
}
#endif

static inline uint16_t raised(float x, uint16_t drawn) {
  const u32 bits = bits_of(x), size = bits & 0x7fffffffu;
  return (uint16_t)(size > 0x7f800000u ? 0x7fc0u : (bits + (size < 0x7f800000u ? drawn : 0)) >> 16);
}
#ifdef WIDE
static inline bool raise_finite(const float* from, const uint16_t* drawn, uint16_t* to) {  // whether all are
  alignas(64) uint16_t odd[32];
  for (int k = 0; k < 32; k++) odd[k] = (uint16_t)(2 * k + 1);
  const __m512i upper = _mm512_load_si512(odd);
  __mmask16 other = 0;
  for (i64 k = 0; k < PART; k += 32) {
    const __m512 a = _mm512_loadu_ps(from + k), b = _mm512_loadu_ps(from + k + 16);
    const __m512i draws = _mm512_loadu_si512(drawn + k), first = _mm512_cvtepu16_epi32(_mm512_castsi512_si256(draws));
    const __m512i second = _mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(draws, 1));
    const __m512i x = _mm512_add_epi32(_mm512_castps_si512(a), first), y = _mm512_add_epi32(_mm512_castps_si512(b), second);
    _mm512_storeu_si512(to + k, _mm512_permutex2var_epi16(x, upper, y));
    other |= (__mmask16)(_mm512_fpclass_ps_mask(a, 0x99) | _mm512_fpclass_ps_mask(b, 0x99));  // infinite, NaN
  }
  return other == 0;
}
#else
static inline bool raise_finite(const float*, const uint16_t*, uint16_t*) { return false; }
#endif
template <class Rest>
static inline void close_bf16(char* const* at, i64 low, i64 high, float* from, const u32* counter, u32 place, Rest rest) {
  uint16_t drawn[BLOCK], found[BLOCK];
  uint16_t *const kept = (uint16_t*)at[0] + low, *const to = high - low < BLOCK ? found : kept;
  draw_halves(low, counter, place, drawn);
  fill(from, high - low);
  EACH_PART {
    if (!raise_finite(from + part, drawn + part, to + part)) {
      #pragma omp simd
      for (i64 k = part; k < part + PART; k++) to[k] = raised(from[k], drawn[k]);
    }
    if (part < high - low) rest(part);
  }
  if (high - low < BLOCK) std::memcpy(kept, found, 2 * (size_t)(high - low));
}
static inline void open_stochastic(char* const* at, i64 low, i64 high, float* to) { open_bf16(at, low, high, to); }
template <class Rest>
static inline void close_stochastic(char* const* at, i64 low, i64 high, float* from, const u32* counter, u32 place, Rest rest) {
  close_bf16(at, low, high, from, counter, place, rest);
}

static inline void open_compensated(char* const* at, i64 low, i64 high, float* to) {
  const bf16 *kept = (const bf16*)at[0] + low, *rest = (const bf16*)at[1] + low;
  for (i64 k = 0; k < high - low; k++) to[k] = load(kept[k]) + load(rest[k]);
}
template <class Rest> static inline void close_compensated(char* const* at, i64 low, i64 high, const float* from, const u32*, u32, Rest rest) {
  bf16 *kept = (bf16*)at[0] + low, *beside = (bf16*)at[1] + low;
  for (i64 k = 0; k < high - low; k++) {
    store(kept[k], from[k]);
    const float left = from[k] - load(kept[k]);
    store(beside[k], is_finite(left) ? left : 0.0f);
  }
  for (i64 part = 0; part < high - low; part += PART) rest(part);
}
