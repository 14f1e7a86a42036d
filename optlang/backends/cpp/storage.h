// Opening and closing of blocks. `at`: pointers to codes and scales of the whole tensor; elements low to high - 1 are meant.
const i64 BLOCK = 256;
const float SMALLEST_SCALE = 1e-12f;

static inline u32 bits_of(float x) { u32 bits; std::memcpy(&bits, &x, 4); return bits; }
static inline float float_of(u32 bits) { float x; std::memcpy(&x, &bits, 4); return x; }

// The largest magnitude; NaN if there is one, since its bits are the largest.
static inline float largest(const float* from, i64 count) {
  u32 found = 0;
  #pragma omp simd reduction(max:found)
  for (i64 k = 0; k < count; k++) {
    const u32 bits = bits_of(from[k]) & 0x7fffffffu;
    found = bits > found ? bits : found;
  }
  return float_of(found);
}
static inline float scale_of(const float* from, i64 count) {
  const float found = largest(from, count);
  return found < SMALLEST_SCALE ? SMALLEST_SCALE : found;
}

static inline void open_table_int8(char* const* at, i64 low, i64 high, float* to, const float* levels) {
  const uint8_t* codes = (const uint8_t*)at[0] + low;
  const float scale = ((const float*)at[1])[low / 256];
  #pragma omp simd
  for (i64 k = 0; k < high - low; k++) to[k] = levels[codes[k]] * scale;
}
static inline void close_table_int8(char* const* at, i64 low, i64 high, const float* from, const float* borders, const int32_t* below) {
  uint8_t* codes = (uint8_t*)at[0] + low;
  const float scale = scale_of(from, high - low);
  const int32_t bins = (23 << 7) + 1, first = (127 - 23) << 7;
  ((float*)at[1])[low / 256] = scale;
  #pragma omp simd
  for (i64 k = 0; k < high - low; k++) {
    const float y = from[k] / scale;
    const u32 bits = bits_of(y);
    int32_t bin = (int32_t)((bits & 0x7fffffffu) >> 16) - first;
    bin = bin < 0 ? 0 : bin >= bins ? bins - 1 : bin;
    const int32_t code = below[bin + (int32_t)(bits >> 31) * bins];
    codes[k] = (uint8_t)(code + (y >= borders[code]));
  }
}

// Two blocks of 128 in each of ours; two codes a byte, the first in its upper half.
static inline void open_table_int4(char* const* at, i64 low, i64 high, float* to, const float* levels) {
  const uint8_t* codes = (const uint8_t*)at[0];
  const float* scales = (const float*)at[1];
  for (i64 i = low; i < high; i++) {
    const int code = (codes[i / 2] >> (i % 2 ? 0 : 4)) & 15;
    to[i - low] = levels[code] * scales[i / 128];
  }
}
static inline void close_table_int4(char* const* at, i64 low, i64 high, const float* from, const float* borders) {
  uint8_t* codes = (uint8_t*)at[0];
  for (i64 start = low; start < high; start += 128) {
    const i64 count = start + 128 < high ? 128 : high - start;
    const float* values = from + (start - low);
    const float scale = scale_of(values, count);
    ((float*)at[1])[start / 128] = scale;
    uint8_t found[128] = {0};
    #pragma omp simd
    for (i64 k = 0; k < count; k++) {
      const float y = values[k] / scale;
      int code = 0;
      for (int level = 0; level < 15; level++) code += y >= borders[level];
      found[k] = (uint8_t)code;
    }
    for (i64 k = 0; k < count; k += 2) codes[(start + k) / 2] = (uint8_t)(found[k] << 4 | (k + 1 < count ? found[k + 1] : 0));
  }
}

#ifdef OPTLANG_FP8
static inline uint8_t to_fp8(float x) {  // e4m3: to nearest, halves to even
  const u32 bits = bits_of(x), sign = (bits >> 24) & 0x80u, size = bits & 0x7fffffffu;
  const float small = float_of(size) + 16384.0f;  // below 2^-6 the sum has the right last bit
  const u32 normal = (size - (120u << 23) + 0x7ffffu + ((size >> 20) & 1u)) >> 20;
  const u32 found = size < (121u << 23) ? bits_of(small) - (141u << 23) : normal;
  return (uint8_t)(sign | (size > 0x7f800000u || found > 0x7eu ? 0x7fu : found));
}
static inline void open_fp8(char* const* at, i64 low, i64 high, float* to) { open_table_int8(at, low, high, to, levels_fp8); }
static inline void close_fp8(char* const* at, i64 low, i64 high, const float* from, const u32*, u32) {
  uint8_t* codes = (uint8_t*)at[0] + low;
  const float scale = scale_of(from, high - low) / 448.0f;
  ((float*)at[1])[low / 256] = scale;
  #pragma omp simd
  for (i64 k = 0; k < high - low; k++) codes[k] = to_fp8(from[k] / scale);
}
#endif

// The upper half of a float32, up or down by the draw. Eight elements share a draw: each takes a half word of it.
static inline void open_bf16(char* const* at, i64 low, i64 high, float* to) {
  const bf16* kept = (const bf16*)at[0] + low;
  for (i64 k = 0; k < high - low; k++) to[k] = load(kept[k]);
}
static inline void draw_halves(i64 low, i64 high, const u32* counter, u32 place, uint16_t* to) {
  u32 words[4][BLOCK / 8];
  const i64 count = (high - low + 7) / 8;
  #pragma omp simd
  for (i64 j = 0; j < count; j++) {
    const Words x = philox((u64)(low / 8 + j), counter[0], 0x80000000u + place, counter[1], counter[2]);
    words[0][j] = x.a;
    words[1][j] = x.b;
    words[2][j] = x.c;
    words[3][j] = x.d;
  }
  for (i64 j = 0; j < count; j++)
    for (int half = 0; half < 8; half++) to[8 * j + half] = (uint16_t)(words[half / 2][j] >> (16 * (half % 2)));
}
static inline void close_bf16(char* const* at, i64 low, i64 high, const float* from, const u32* counter, u32 place) {
  bf16* kept = (bf16*)at[0] + low;
  uint16_t drawn[BLOCK];
  draw_halves(low, high, counter, place, drawn);
  #pragma omp simd
  for (i64 k = 0; k < high - low; k++) {
    const u32 bits = bits_of(from[k]);
    const bool finite = (bits & 0x7fffffffu) < 0x7f800000u;
    const u32 raised = bits + drawn[k];
    bf16 plain;
    store(plain, from[k]);
    kept[k].bits = finite ? (uint16_t)(raised >> 16) : plain.bits;
  }
}
static inline void open_stochastic(char* const* at, i64 low, i64 high, float* to) { open_bf16(at, low, high, to); }
static inline void close_stochastic(char* const* at, i64 low, i64 high, const float* from, const u32* counter, u32 place) {
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
