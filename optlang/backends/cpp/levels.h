// Opening what is stored as places among levels, a part of a block at a time.

// Up to 256 numbers, and their bytes one by one: the first of all, then the second of all.
struct Table {
  float values[256];
  alignas(64) u8 planes[4][256];
};
// Levels that are each other's negatives: bytes of the magnitudes alone. SIGN: the upper bit of a place is its sign, the others are
// that of its magnitude; else what counts is the distance from place 127, which is that of 0, and the largest distance, 128, comes first.
template <bool SIGN> struct Mirrored {
  float values[256];
  alignas(64) u8 planes[4][128];
};

#ifdef WIDE
static inline __m512i bytes_at(const u8* plane, __m512i places, __mmask64 upper) {
  const __m512i* part = (const __m512i*)plane;
  return _mm512_mask_blend_epi8(upper, _mm512_permutex2var_epi8(part[0], places, part[1]), _mm512_permutex2var_epi8(part[2], places, part[3]));
}
static inline void store_scaled(float* to, __m512i values, __m512 scale) {
  _mm512_storeu_ps(to, _mm512_mul_ps(_mm512_castsi512_ps(values), scale));
}
static inline __m512i ordered(const u8* places) {  // so that unpacking puts what is found for them in order
  const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  return _mm512_permutexvar_epi32(order, _mm512_loadu_si512(places));
}
static inline void unpack(__m512i a, __m512i b, __m512i c, __m512i d, float scale, float* to) {
  const __m512 factor = _mm512_set1_ps(scale);
  const __m512i ab = _mm512_unpacklo_epi8(a, b), cd = _mm512_unpacklo_epi8(c, d);
  const __m512i AB = _mm512_unpackhi_epi8(a, b), CD = _mm512_unpackhi_epi8(c, d);
  store_scaled(to, _mm512_unpacklo_epi16(ab, cd), factor);
  store_scaled(to + 16, _mm512_unpackhi_epi16(ab, cd), factor);
  store_scaled(to + 32, _mm512_unpacklo_epi16(AB, CD), factor);
  store_scaled(to + 48, _mm512_unpackhi_epi16(AB, CD), factor);
}
// The levels of a part: where the processor permutes bytes, four permutations are quicker than 64 reads.
static inline void look_up(const Table& table, const u8* places, float scale, float* to) {
  const __m512i at = ordered(places);
  const __mmask64 upper = _mm512_movepi8_mask(at);
  unpack(bytes_at(table.planes[0], at, upper), bytes_at(table.planes[1], at, upper), bytes_at(table.planes[2], at, upper),
         bytes_at(table.planes[3], at, upper), scale, to);
}
static inline __m512i bytes_of(const u8* plane, __m512i places, __mmask64 some) {  // of half a table: the last 7 bits count
  const __m512i* part = (const __m512i*)plane;
  return _mm512_maskz_permutex2var_epi8(some, part[0], places, part[1]);
}
template <bool SIGN> static inline void look_up(const Mirrored<SIGN>& table, const u8* places, float scale, float* to) {
  const __m512i at = ordered(places), above = _mm512_add_epi8(at, _mm512_set1_epi8(-127));
  const __m512i far = SIGN ? at : _mm512_abs_epi8(above), upper = _mm512_set1_epi8((char)0x80);
  const __mmask64 some = SIGN ? ~0ull : _mm512_test_epi8_mask(above, above);
  const __m512i a = bytes_of(table.planes[0], far, some), b = bytes_of(table.planes[1], far, some);
  const __m512i c = bytes_of(table.planes[2], far, some), d = bytes_of(table.planes[3], far, some);
  const __m512i top = _mm512_ternarylogic_epi32(d, _mm512_maskz_mov_epi8(some, upper), at, SIGN ? 0xf8 : 0xf4);  // d | (upper & (~)at)
  unpack(a, b, c, top, scale, to);
}
// The same for two places in each byte, the first in its upper half.
static inline void look_up_pairs(const Table& table, const u8* pairs, float scale, float* to) {
  const __m512i bytes = _mm512_castsi256_si512(_mm256_loadu_si256((const __m256i*)pairs));
  const __m512i first = _mm512_setr_epi32(0, 0, 0x1010101, 0x1010101, 0x2020202, 0x2020202, 0x3030303, 0x3030303, 0x4040404, 0x4040404,
                                          0x5050505, 0x5050505, 0x6060606, 0x6060606, 0x7070707, 0x7070707);
  const __m512 levels = _mm512_loadu_ps(table.values), factor = _mm512_set1_ps(scale);
  EACH {
    const __m512i twice = _mm512_permutexvar_epi8(_mm512_add_epi8(first, _mm512_set1_epi8((char)(8 * k))), bytes);
    const __m512i place = _mm512_srlv_epi32(twice, _mm512_set1_epi64(4));  // of which the last 4 bits count
    _mm512_storeu_ps(to + 16 * k, _mm512_mul_ps(_mm512_permutexvar_ps(place, levels), factor));
  }
}
#elif defined(EIGHT)
// One by one into all lanes, of which one is taken: processors that have gathers are seldom quicker by them.
template <class Levels> static inline void look_up(const Levels& table, const u8* places, float scale, float* to) {
  const __m256 factor = _mm256_set1_ps(scale);
  for (i64 at = 0; at < PART; at += 8) {
    u64 eight;
    __builtin_memcpy(&eight, places + at, 8);
    __m256 level[8], pair[4];
    for (int k = 0; k < 8; k++) level[k] = _mm256_broadcast_ss(table.values + (u8)(eight >> 8 * k));
    EACH pair[k] = _mm256_blend_ps(level[2 * k], level[2 * k + 1], 0xaa);
    const __m256 low = _mm256_blend_ps(pair[0], pair[1], 0xcc), high = _mm256_blend_ps(pair[2], pair[3], 0xcc);
    _mm256_storeu_ps(to + at, _mm256_mul_ps(_mm256_blend_ps(low, high, 0xf0), factor));
  }
}
// Places of e4m3 are halves with fewer bits, but for a factor of 2^8 and what is no number.
static inline void look_up(const Mirrored<true>&, const u8* places, float scale, float* to) {
  const __m256 factor = _mm256_set1_ps(scale * 256);
  const __m256i without_second = _mm256_set1_epi16((short)0xbfff), most = _mm256_set1_epi16(0x7f << 7);
  for (i64 k = 0; k < PART; k += 16) {
    const __m256i wide = _mm256_slli_epi16(_mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i*)(places + k))), 7);
    const __m256i is_nan = _mm256_cmpeq_epi16(_mm256_and_si256(wide, most), most);
    const __m256i half = _mm256_or_si256(_mm256_and_si256(wide, without_second), _mm256_srli_epi16(is_nan, 1));
    _mm256_storeu_ps(to + k, _mm256_mul_ps(_mm256_cvtph_ps(_mm256_castsi256_si128(half)), factor));
    _mm256_storeu_ps(to + k + 8, _mm256_mul_ps(_mm256_cvtph_ps(_mm256_extracti128_si256(half, 1)), factor));
  }
}
static inline void look_up_pairs(const Table& table, const u8* pairs, float scale, float* to) {
  const __m256 lower = _mm256_loadu_ps(table.values), upper = _mm256_loadu_ps(table.values + 8), factor = _mm256_set1_ps(scale);
  for (i64 k = 0; k < PART; k += 8) {
    int four;
    __builtin_memcpy(&four, pairs + k / 2, 4);
    const __m256i at = _mm256_srlv_epi32(_mm256_set1_epi32(four), _mm256_setr_epi32(4, 0, 12, 8, 20, 16, 28, 24));  // the last 3 bits count
    const __m256 is_upper = _mm256_castsi256_ps(_mm256_slli_epi32(at, 28));
    const __m256 found = _mm256_blendv_ps(_mm256_permutevar8x32_ps(lower, at), _mm256_permutevar8x32_ps(upper, at), is_upper);
    _mm256_storeu_ps(to + k, _mm256_mul_ps(found, factor));
  }
}
#else
template <class Levels> static inline void look_up(const Levels& table, const u8* places, float scale, float* to) {
  #pragma omp simd
  for (i64 k = 0; k < PART; k++) to[k] = table.values[places[k]] * scale;
}
static inline void look_up_pairs(const Table& table, const u8* pairs, float scale, float* to) {
  #pragma omp simd
  for (i64 k = 0; k < PART / 2; k++) {
    to[2 * k] = table.values[pairs[k] >> 4] * scale;
    to[2 * k + 1] = table.values[pairs[k] & 15] * scale;
  }
}
#endif

template <class Size, class Levels>
static inline void open_bytes(char* const* at, i64 low, i64 part, Size size, float* to, const Levels& levels) {
  const i64 count = count_of(part, size);
  u8 codes[PART];
  const u8* stored = (const u8*)at[0] + low + part;
  if (count < PART) stored = (const u8*)__builtin_memcpy(__builtin_memset(codes, 0, PART), stored, (u64)count);
  look_up(levels, stored, ((const float*)at[1])[low / 256], to);
}
// Two blocks of 128 in each of ours; two codes a byte, the first in its upper half.
template <class Size>
static inline void open_halves(char* const* at, i64 low, i64 part, Size size, float* to, const Table& levels) {
  const i64 count = count_of(part, size);
  u8 pairs[PART / 2];
  const u8* stored = (const u8*)at[0] + (low + part) / 2;
  if (count < PART) stored = (const u8*)__builtin_memcpy(__builtin_memset(pairs, 0, PART / 2), stored, (u64)(count + 1) / 2);
  look_up_pairs(levels, stored, ((const float*)at[1])[(low + part) / 128], to);
}
