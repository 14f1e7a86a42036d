// Opening and closing of blocks. `at`: pointers to codes and scales of the whole tensor; elements low to high - 1 are meant.
// Buffers hold BLOCK numbers whatever the block has: loops of a known length become vectors without a rest.
#ifdef __AVX512F__
#include <immintrin.h>
#endif
#include <initializer_list>

const i64 BLOCK = 256;
const float SMALLEST_SCALE = 1e-12f;

static inline u32 bits_of(float x) { u32 bits; std::memcpy(&bits, &x, 4); return bits; }
static inline float float_of(u32 bits) { float x; std::memcpy(&x, &bits, 4); return x; }

// Up to 256 numbers, and their bytes one by one: the first of all, then the second of all.
struct Table {
  float values[256] = {0};
  alignas(64) uint8_t planes[4][256];
  Table(std::initializer_list<float> given) {
    int count = 0;
    for (float x : given) values[count++] = x;
    for (int k = 0; k < 256; k++)
      for (int byte = 0; byte < 4; byte++) planes[byte][k] = (uint8_t)(bits_of(values[k]) >> (8 * byte));
  }
};

#ifdef __AVX512VBMI__
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

// How the codes of a format are found in two steps: something near says how many borders lie at or below a number, but for
// one border; a comparison with that one decides. ZERO: the code of 0 where levels below it mirror those above; else -1.
struct Codes {
  Table borders;
  float lines[2][8];                // slopes and heights at 0; the lowest line counts: see `storage.lines`
  alignas(64) uint16_t bins[4][32];  // the same for each power of two, in 1/256 of a level: see `storage.bins`
};

#ifdef __AVX512VBMI__
template <int ZERO> static inline __m512i words_near(const Codes& codes, __m512i upper) {  // of 32 numbers, from their upper halves
  const __m512i* const bins = (const __m512i*)codes.bins;
  const __m512i size = ZERO < 0 ? _mm512_max_epi16(upper, _mm512_setzero_si512()) : _mm512_and_si512(upper, _mm512_set1_epi16(0x7fff));
  const __m512i place = _mm512_subs_epu16(size, _mm512_set1_epi16((127 - 23) << 7));
  const __m512i power = _mm512_srli_epi16(place, 7), part = _mm512_slli_epi16(place, 9);
  const __m512i a = _mm512_add_epi16(_mm512_permutexvar_epi16(power, bins[0]), _mm512_mulhi_epu16(part, _mm512_permutexvar_epi16(power, bins[1])));
  const __m512i b = _mm512_add_epi16(_mm512_permutexvar_epi16(power, bins[2]), _mm512_mulhi_epu16(part, _mm512_permutexvar_epi16(power, bins[3])));
  const __m512i near = _mm512_srli_epi16(_mm512_min_epu16(a, b), 8);
  if (ZERO < 0) return near;
  const __m512i above = _mm512_add_epi16(near, _mm512_set1_epi16((short)ZERO));
  return _mm512_mask_subs_epu16(above, _mm512_movepi16_mask(upper), _mm512_set1_epi16((short)(ZERO - 1)), near);
}
static inline __m512i quotients(const float* from, __m512 scale) { return _mm512_castps_si512(_mm512_div_ps(_mm512_loadu_ps(from), scale)); }
static inline __mmask64 reached(__m512i y, const float* border) {
  return _mm512_cmp_ps_mask(_mm512_castsi512_ps(y), _mm512_loadu_ps(border), _CMP_GE_OQ);
}
template <i64 SIZE, int ZERO> static inline void find_codes(const float* from, float scale, const Codes& codes, uint8_t* to) {
  alignas(64) uint16_t odd[32];
  for (int k = 0; k < 32; k++) odd[k] = (uint16_t)(2 * k + 1);
  const __m512i halves = _mm512_load_si512(odd), words = _mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7);
  const __m512 divisor = _mm512_set1_ps(scale);
  for (i64 k = 0; k < SIZE; k += 64) {
    const __m512i a = quotients(from + k, divisor), b = quotients(from + k + 16, divisor);
    const __m512i c = quotients(from + k + 32, divisor), d = quotients(from + k + 48, divisor);
    const __m512i first = words_near<ZERO>(codes, _mm512_permutex2var_epi16(a, halves, b));
    const __m512i second = words_near<ZERO>(codes, _mm512_permutex2var_epi16(c, halves, d));
    const __m512i near = _mm512_permutexvar_epi64(words, _mm512_packus_epi16(first, second));
    alignas(64) uint8_t at[64];
    float border[64];
    _mm512_store_si512(at, near);
    look_up(codes.borders, at, 64, border);
    const __mmask64 more = reached(a, border) | reached(b, border + 16) << 16 | reached(c, border + 32) << 32 | reached(d, border + 48) << 48;
    _mm512_storeu_si512(to + k, _mm512_mask_add_epi8(near, more, near, _mm512_set1_epi8(1)));
  }
}
#else
template <i64 SIZE, int ZERO> static inline void find_codes(const float* from, float scale, const Codes& codes, uint8_t* to) {
  float y[SIZE], border[SIZE];
  #pragma omp simd
  for (i64 k = 0; k < SIZE; k++) {
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
  look_up(codes.borders, to, SIZE, border);
  #pragma omp simd
  for (i64 k = 0; k < SIZE; k++) to[k] = (uint8_t)(to[k] + (y[k] >= border[k]));
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
template <int ZERO> static inline void close_bytes(char* const* at, i64 low, i64 high, float* from, const Codes& codes) {
  fill(from, high - low);
  const float scale = scale_of<BLOCK>(from);
  ((float*)at[1])[low / 256] = scale;
  uint8_t found[BLOCK];
  find_codes<BLOCK, ZERO>(from, scale, codes, found);
  std::memcpy((uint8_t*)at[0] + low, found, (size_t)(high - low));
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
template <int ZERO> static inline void close_halves(char* const* at, i64 low, i64 high, float* from, const Codes& codes) {
  uint8_t found[BLOCK], pairs[BLOCK / 2];
  fill(from, high - low);
  for (i64 start = 0; start < BLOCK; start += 128) {
    const float scale = scale_of<128>(from + start);
    if (low + start < high) ((float*)at[1])[(low + start) / 128] = scale;
    find_codes<128, ZERO>(from + start, scale, codes, found + start);
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
static inline void close_fp8(char* const* at, i64 low, i64 high, float* from, const u32*, u32) {
  fill(from, high - low);
  const float scale = scale_of<BLOCK>(from) / 448.0f;
  ((float*)at[1])[low / 256] = scale;
  uint8_t codes[BLOCK];
  #pragma omp simd
  for (i64 k = 0; k < BLOCK; k++) codes[k] = to_fp8(from[k] / scale);
  std::memcpy((uint8_t*)at[0] + low, codes, (size_t)(high - low));
}

// The upper half of a float32, up or down by the draw. Eight elements share a draw: each takes a half word of it.
static inline void open_bf16(char* const* at, i64 low, i64 high, float* to) {
  const bf16* kept = (const bf16*)at[0] + low;
  #pragma omp simd
  for (i64 k = 0; k < high - low; k++) to[k] = load(kept[k]);
}
#ifdef __AVX512F__
// Eight draws at a time, a word in the lower half of each lane: what stands above it never reaches a result.
static inline void draw_halves(i64 low, const u32* counter, u32 place, uint16_t* to) {
  const __m512i order = _mm512_setr_epi64(0, 4, 1, 5, 2, 6, 3, 7);  // unpacking undoes it
  const __m512i left = _mm512_set1_epi64(0xD2511F53), right = _mm512_set1_epi64(0xCD9E8D57);
  #pragma GCC unroll 4
  for (i64 j = 0; j < BLOCK / 8; j += 8) {
    __m512i a = _mm512_add_epi64(_mm512_set1_epi64(low / 8 + j), order), b = _mm512_srli_epi64(a, 32);
    __m512i c = _mm512_set1_epi64(counter[0]), d = _mm512_set1_epi64(0x80000000u + place);
    u32 k = counter[1], m = counter[2];
    #pragma GCC unroll 10
    for (int round = 0; round < 10; round++) {
      const __m512i first = _mm512_mul_epu32(a, left), second = _mm512_mul_epu32(c, right);
      a = _mm512_xor_si512(_mm512_xor_si512(_mm512_srli_epi64(second, 32), b), _mm512_set1_epi64(k));
      c = _mm512_xor_si512(_mm512_xor_si512(_mm512_srli_epi64(first, 32), d), _mm512_set1_epi64(m));
      b = second;
      d = first;
      k += 0x9E3779B9u;
      m += 0xBB67AE85u;
    }
    const __m512i ab = _mm512_mask_blend_epi32(0xAAAA, a, _mm512_slli_epi64(b, 32));
    const __m512i cd = _mm512_mask_blend_epi32(0xAAAA, c, _mm512_slli_epi64(d, 32));
    _mm512_storeu_si512(to + 8 * j, _mm512_unpacklo_epi64(ab, cd));
    _mm512_storeu_si512(to + 8 * j + 32, _mm512_unpackhi_epi64(ab, cd));
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

static inline void close_bf16(char* const* at, i64 low, i64 high, float* from, const u32* counter, u32 place) {
  uint16_t drawn[BLOCK], found[BLOCK];
  draw_halves(low, counter, place, drawn);
  fill(from, high - low);
  #pragma omp simd
  for (i64 k = 0; k < BLOCK; k++) {
    const u32 bits = bits_of(from[k]), size = bits & 0x7fffffffu;
    const u32 raised = bits + (size < 0x7f800000u ? drawn[k] : 0);
    found[k] = (uint16_t)(size > 0x7f800000u ? 0x7fc0u : raised >> 16);
  }
  std::memcpy((bf16*)at[0] + low, found, 2 * (size_t)(high - low));
}
static inline void open_stochastic(char* const* at, i64 low, i64 high, float* to) { open_bf16(at, low, high, to); }
static inline void close_stochastic(char* const* at, i64 low, i64 high, float* from, const u32* counter, u32 place) {
  close_bf16(at, low, high, from, counter, place);
}

static inline void open_compensated(char* const* at, i64 low, i64 high, float* to) {
  const bf16 *kept = (const bf16*)at[0] + low, *rest = (const bf16*)at[1] + low;
  for (i64 k = 0; k < high - low; k++) to[k] = load(kept[k]) + load(rest[k]);
}
static inline void close_compensated(char* const* at, i64 low, i64 high, const float* from, const u32*, u32) {
  bf16 *kept = (bf16*)at[0] + low, *rest = (bf16*)at[1] + low;
  for (i64 k = 0; k < high - low; k++) {
    store(kept[k], from[k]);
    const float left = from[k] - load(kept[k]);
    store(rest[k], is_finite(left) ? left : 0.0f);
  }
}
