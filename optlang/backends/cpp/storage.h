// Opening and closing of blocks. `at`: pointers to codes and scales of the whole tensor; elements low to high - 1 are meant.
// Buffers hold BLOCK numbers whatever the block has: loops of a known length become vectors without a rest.
#if defined(__AVX512VBMI__) && defined(__AVX512BW__) && defined(__AVX512DQ__)
#define WIDE
#include <immintrin.h>
#elif defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
#define EIGHT
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

const i64 BLOCK = 256;
#ifdef WIDE
const i64 PART = 64;
#else
const i64 PART = 128;
#endif
#define COLD __attribute__((noinline, cold))
#define EACH_PART _Pragma("GCC unroll 1") for (i64 part = 0; part < size; part += PART)
struct Whole {  // the size of a block that is full, as a constant
  constexpr operator i64() const { return BLOCK; }
};
// How many elements a part of a block has.
static inline i64 count_of(i64, Whole) { return PART; }
static inline i64 count_of(i64 part, i64 size) { return part + PART < size ? PART : size - part; }
// Blocks are computed for so long that what the processor foresees comes too late: what a part is for, the second next block will need.
template <class T> static inline void foresee(const T* part) {
  for (u64 k = 0; k < PART * sizeof(T); k += 64) __builtin_prefetch((const char*)(part + 2 * BLOCK) + k);
}
#ifdef WIDE
static inline __mmask64 joined(const __mmask16* parts) {
  return _mm512_kunpackd(_mm512_kunpackw(parts[3], parts[2]), _mm512_kunpackw(parts[1], parts[0]));
}
#endif

const float SMALLEST_SCALE = 1e-12f;

static inline u32 bits_of(float x) { u32 bits; __builtin_memcpy(&bits, &x, 4); return bits; }
static inline float float_of(u32 bits) { float x; __builtin_memcpy(&x, &bits, 4); return x; }

// The largest magnitudes of the parts of a block, seen one after the other; NaN if there is one, since its bits are the largest.
struct Largest {
  template <class Size> explicit Largest(Size size) {
    if (size < BLOCK) __builtin_memset((void*)bits, 0, sizeof bits);
  }
#ifdef WIDE
  __m512i bits[BLOCK / PART];
  void see(i64 part, const float* from) {
    __m512i size[4];
    EACH size[k] = _mm512_castps_si512(_mm512_abs_ps(_mm512_loadu_ps(from + 16 * k)));
    bits[part / PART] = _mm512_max_epu32(_mm512_max_epu32(size[0], size[1]), _mm512_max_epu32(size[2], size[3]));
  }
  float of(i64 low, i64 high) const {  // of some of the elements
    __m512i found = bits[low / PART];
    for (i64 k = low / PART + 1; k < high / PART; k++) found = _mm512_max_epu32(found, bits[k]);
    return float_of(_mm512_reduce_max_epu32(found));
  }
#else
  u32 bits[BLOCK / PART];
  void see(i64 part, const float* from) {
    u32 found = 0;
    #pragma omp simd reduction(max:found)
    for (i64 k = 0; k < PART; k++) {
      const u32 size = bits_of(from[k]) & 0x7fffffffu;
      found = size > found ? size : found;
    }
    bits[part / PART] = found;
  }
  float of(i64 low, i64 high) const {
    u32 found = bits[low / PART];
    for (i64 k = low / PART + 1; k < high / PART; k++) found = bits[k] > found ? bits[k] : found;
    return float_of(found);
  }
#endif
  template <class Size> void see(i64 part, Size size, float* from) {
    for (i64 k = count_of(part, size); k < PART; k++) from[part + k] = 0;
    see(part, from + part);
  }
};
static inline float scale_of(float largest) { return largest < SMALLEST_SCALE ? SMALLEST_SCALE : largest; }

// What closes a block writes it part by part; a bit of `unsure` says that a part is not settled yet, which is rare.
template <class Closing> static inline void done(const Closing& closing) {
  if (__builtin_expect(closing.unsure != 0, 0)) {
    const Closing copy = closing;  // what others see the address of is read from memory ever after
    copy.settle();
  }
}
