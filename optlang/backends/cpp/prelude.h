// What every generated kernel begins with: number types, the operators that C++ lacks, and which tensor a chunk is of.
// Headers would take longer to read than all else takes to compile.
typedef __UINT8_TYPE__ u8;
typedef __UINT16_TYPE__ u16;
typedef __UINT32_TYPE__ u32;
typedef __UINT64_TYPE__ u64;
typedef __INT64_TYPE__ i64;
#define NAN __builtin_nanf("")
#define INFINITY __builtin_inff()
#define EACH _Pragma("GCC unroll 4") for (int k = 0; k < 4; k++)  // of four vectors side by side

struct bf16 { u16 bits; };

// The functions of C, for both widths.
namespace math {
#define BOTH(name, of_float, of_double) \
  static inline float name(float x) { return __builtin_##of_float(x); } \
  static inline double name(double x) { return __builtin_##of_double(x); }
#define FUNCTION(name) BOTH(name, name##f, name)
#define OF_TWO(name) \
  static inline float name(float x, float y) { return __builtin_##name##f(x, y); } \
  static inline double name(double x, double y) { return __builtin_##name(x, y); }
BOTH(abs, fabsf, fabs)
FUNCTION(sqrt) FUNCTION(cbrt) FUNCTION(exp2) FUNCTION(expm1) FUNCTION(log) FUNCTION(log2) FUNCTION(log10) FUNCTION(log1p)
FUNCTION(sin) FUNCTION(cos) FUNCTION(tan) FUNCTION(asin) FUNCTION(acos) FUNCTION(atan)
FUNCTION(sinh) FUNCTION(cosh) FUNCTION(tanh) FUNCTION(asinh) FUNCTION(acosh) FUNCTION(atanh)
FUNCTION(floor) FUNCTION(ceil) FUNCTION(nearbyint)
OF_TWO(atan2) OF_TWO(fmod) OF_TWO(pow)
}

static inline u64 bits_of(double x) {
  u64 bits;
  __builtin_memcpy(&bits, &x, 8);
  return bits;
}
static inline double of_bits(u64 bits) {
  double x;
  __builtin_memcpy(&x, &bits, 8);
  return x;
}
namespace math {
// The C library takes one number at a time, and with it all else in a loop; these as many as a vector holds. A power of 2, and the series
// of what is left, at most log(2) / 2: what is left out of it is less than rounding takes away. Of the two parts of log(2) the first times k is exact.
static inline double power_of_2(double k) { return of_bits(bits_of(k + (0x1p52 + 1023)) << 52); }
static inline double turns(double x) { return floor(x * 1.4426950408889634 + 0.5); }
static inline double left(double x, double k) { return (x - k * 0x1.62e42fefap-1) - k * 0x1.cf79abc9e3b3ap-40; }
static inline double exp(double of) {
  const double x = of > 710 ? 710 : of < -746 ? -746 : of, k = turns(x), r = left(x, k), half = floor(k / 2);
  const double rest = 1. / 5040 + r * (1. / 40320 + r * (1. / 362880 + r * (1. / 3628800 + r * (1. / 39916800 + r * (1. / 479001600 + r * (1. / 6227020800))))));
  return (1 + r * (1 + r * (1. / 2 + r * (1. / 6 + r * (1. / 24 + r * (1. / 120 + r * (1. / 720 + r * rest))))))) * power_of_2(half) * power_of_2(k - half);
}
static inline float exp(float of) {
  const double x = of > 89 ? 89 : of < -104 ? -104 : of, k = turns(x), r = left(x, k);
  const double rest = 1. / 120 + r * (1. / 720 + r * (1. / 5040 + r * (1. / 40320 + r * (1. / 362880))));
  return (float)((1 + r * (1 + r * (1. / 2 + r * (1. / 6 + r * (1. / 24 + r * rest))))) * power_of_2(k));
}
}

static inline float load(const float& x) { return x; }
static inline double load(const double& x) { return x; }
static inline bool load(const bool& x) { return x; }
static inline float load(const _Float16& x) { return (float)x; }
static inline float load(const bf16& x) {
  u32 bits = (u32)x.bits << 16;
  float value;
  __builtin_memcpy(&value, &bits, 4);
  return value;
}

static inline void store(float& to, double x) { to = (float)x; }
static inline void store(float& to, float x) { to = x; }
static inline void store(double& to, double x) { to = x; }
static inline void store(bool& to, bool x) { to = x; }
static inline void store(_Float16& to, float x) { to = (_Float16)x; }
static inline void store(bf16& to, float x) {  // to nearest, halves to even
  u32 bits;
  __builtin_memcpy(&bits, &x, 4);
  u32 rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  to.bits = (u16)(x != x ? 0x7fc0 : rounded);
}

template <class T> static inline T sign(T x) { return (T)((x > 0) - (x < 0)); }
template <class T> static inline T larger(T a, T b) { return (a > b || a != a) ? a : b; }
template <class T> static inline T smaller(T a, T b) { return (a < b || a != a) ? a : b; }
static inline bool is_finite(float x) { return math::abs(x) <= __FLT_MAX__; }
static inline bool is_finite(double x) { return math::abs(x) <= __DBL_MAX__; }
// Not `remainder`: for doubles that is a function of C, which rounds to the nearest.
template <class T> static inline T modulo(T a, T b) {
  T r = math::fmod(a, b);
  return (r != 0 && ((r < 0) != (b < 0))) ? r + b : r;
}
template <class T> static inline T power(T a, T b) { return math::pow(a, b); }
template <int N, class T> static inline T whole_power(T a) {
  T result = a;
  for (int i = 1; i < N; i++) result *= a;
  return result;
}

// The tensor of a chunk: in most cases that of the chunk before, or one beside it.
static inline i64 tensor_of(i64 chunk, i64 before, const i64* starts, i64 count) {
  for (i64 n = before > 0 ? before - 1 : 0; n < before + 2 && n < count; n++)
    if (starts[n] <= chunk && chunk < starts[n + 1]) return n;
  i64 below = 0, above = count;
  while (above - below > 1) {
    const i64 middle = (below + above) / 2;
    if (starts[middle] <= chunk) below = middle; else above = middle;
  }
  return below;
}
// Where a wave of tensors ends: what goes through all passes before the next one, so that later passes find it in the cache.
static inline i64 wave_end(i64 first, i64 count, const i64* starts, i64 chunks) {
  i64 last = first + 1;
  while (last < count && starts[last + 1] - starts[first] <= chunks) last++;
  return last;
}

// One tensor of a step. `row` holds the numbers known before, `sums` its finished reductions, `lines` those to rows and columns.
template <class number> struct Of {
  i64 size;
  char* const* pointers;
  const number* row;
  const u32* counter;
  const double* sums;
  i64 batch, rows, cols;
  double* lines;
};
