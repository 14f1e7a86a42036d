// Functions of float32 under the names of builtins, as many at a time as a vector holds: the C library takes one, and with it all else in a
// loop. They compute in float64 and without branches, so that it is the same whether a vector computes or not. What series leave out, at
// most 2^-35 of a result, changes less than one in a thousand. Their terms stand in pairs, as processors wait for each product;
// coefficients that are no fractions are of the polynomial whose largest error is least.
namespace floats {
#define FLOATS static inline __attribute__((always_inline))
FLOATS float with_sign(double x, float of) { return __builtin_copysignf((float)x, of); }
FLOATS bool is_negative(double x) { return __builtin_copysign(1, x) < 0; }

// 2^x is a power of 2 times that of what is left, which is at most 1/2: `rest` of it more than 1.
struct Power { double whole, rest; };
FLOATS Power power_of_2(double of) {
  const double x = of < -160 ? -160 : of > 160 ? 160 : of, k = math::floor(x + 0.5), r = (x - k) * 0.6931471805599453, z = r * r;
  const double end = (1. / 720 + r * (1. / 5040)) + z * (1. / 40320 + r * (1. / 362880));
  const double rest = r + z * ((1. / 2 + r * (1. / 6)) + z * ((1. / 24 + r * (1. / 120)) + z * end));
  const double whole = math::power_of_2(k);
  return {whole, whole * rest};
}
const double BITS = 1.4426950408889634;  // 1 / log(2)
FLOATS double power(double x) {
  const Power y = power_of_2(x);
  return y.whole + y.rest;
}
FLOATS double less_1(double x) {
  const Power y = power_of_2(x * BITS);
  return (y.whole - 1) + y.rest;
}
FLOATS float exp2(float x) { return (float)power(x); }
FLOATS float expm1(float x) { return with_sign(less_1(x), x); }
FLOATS float sinh(float x) {
  const double y = less_1(math::abs(x));
  return with_sign((y + y / (y + 1)) / 2, x);
}
FLOATS float cosh(float x) {
  const double y = power(math::abs(x) * BITS);
  return (float)((y + 1 / y) / 2);
}
FLOATS float tanh(float x) {
  const double y = less_1(2. * x);
  return with_sign(y / (y + 2), x);
}

// Of m * 2^k with m from sqrt(1/2) to sqrt(2): log(m) = 2 * atanh((m - 1) / (m + 1)).
FLOATS double logarithm(double x) {
  const u64 one = 1ull << 52, root = 0x3fe6a09e667f3bcdull;  // a step of k; sqrt(1/2)
  const u64 above = bits_of(x) - root + 1023 * one;  // k + 1023 in its upper bits
  const double k = of_bits(0x4330000000000000ull | above >> 52) - (0x1p52 + 1023);
  const double m = of_bits(bits_of(x) - (above & ~(one - 1)) + 1023 * one), s = (m - 1) / (m + 1), z = s * s, y = z * z;
  const double rest = z * ((0.3333333333982573 + z * 0.1999999743609073)
                    + y * ((0.1428608400842218 + z * 0.11087088609839651) + y * 0.0980454196630961));
  const double found = k * 0.6931471805599453 + 2 * (s + s * rest);
  return x > 0 ? x <= __DBL_MAX__ ? found : x : x == 0 ? -(double)INFINITY : (double)NAN;
}
FLOATS double of_1_and(double x) {  // log(1 + x), with what is lost when these are added
  const double sum = 1 + x, lost = x - (sum - 1);
  return logarithm(sum) + (lost == lost ? lost : 0);
}
FLOATS float log(float x) { return (float)logarithm(x); }
FLOATS float log2(float x) { return (float)(logarithm(x) * BITS); }
FLOATS float log10(float x) { return (float)(logarithm(x) * 0.4342944819032518); }
FLOATS float log1p(float x) { return with_sign(of_1_and(x), x); }
FLOATS float asinh(float of) {
  const double x = math::abs((double)of), square = x * x, more = square / (1 + math::sqrt(1 + square));
  return with_sign(of_1_and(x + (more == more ? more : 0)), of);
}
FLOATS float acosh(float of) {
  const double x = of, found = of_1_and((x - 1) + math::sqrt((x - 1) * (x + 1)));
  return (float)(x < 1 ? (double)NAN : found);
}
FLOATS float atanh(float x) { return with_sign(of_1_and(2. * x / (1. - x)) / 2, x); }

FLOATS float cbrt(float x) { return with_sign(power(logarithm(math::abs((double)x)) * (BITS / 3)), x); }
FLOATS float pow(float of, float to) {
  const double x = of, y = to, half = y / 2, size = logarithm(math::abs(x)) * BITS;
  const bool is_whole = math::floor(y) == y, is_odd = is_whole & (math::floor(half) != half);
  const double found = power((size == 0) | (y == 0) ? 0 : y * size);
  const double behind_0 = is_odd ? -found : is_whole | (x == 0) | (x < -__FLT_MAX__) ? found : (double)NAN;
  return (float)(is_negative(x) & (x == x) ? behind_0 : found);
}

// 256^k * 2 / pi, less whole turns of 4 quarters, of which whole numbers of times are left out; in three parts: of the first two, which have
// 29 digits, products with a float are exact.
static const double FIRST[16] = {0x1.45f306dp-1, 0x1.7cc1b72p+1, 0x1.836e4e4p+0, 0x1.b72722p+1, 0x1.27220a9p+1, 0x1.220a94fp+1,
  0x1.529fc27p-4, 0x1.29fc275p+0, 0x1.fc2757dp+0, 0x1.3abe8fap-3, 0x1.abe8fa9p+1, 0x1.e8fa9a6p+1, 0x1.f534ddcp+0, 0x1.34ddc0dp+0,
  0x1.bb81b6cp-1, 0x1.c0db629p+0};
static const double SECOND[16] = {0x1.9391054p-30, 0x1.c882a53p-29, 0x1.054a7fp-30, 0x1.529fc27p-28, 0x1.3f84eafp-29, 0x1.c2757d1p-28,
  0x1.5f47d4dp-34, 0x1.f47d4d3p-30, 0x1.f534ddcp-32, 0x1.34ddc0dp-32, 0x1.4ddc0dbp-28, 0x1.dc0db62p-28, 0x1.b6c52b3p-33, 0x1.6c52b32p-29,
  0x1.4acc9e2p-31, 0x1.664f10ep-30};
static const double THIRD[16] = {0x1.4fe13abe8fa9ap-59, 0x1.f09d5f47d4d37p-58, 0x1.3abe8fa9a6eep-59, 0x1.5f47d4d377037p-58,
  0x1.47d4d377036d9p-58, 0x1.ea69bb81b6c53p-57, 0x1.bb81b6c52b328p-65, 0x1.dc0db6295993cp-60, 0x1.b6c52b3278872p-65, 0x1.6c52b32788721p-61,
  0x1.8a5664f10e41p-58, 0x1.2b3278872084p-57, 0x1.3c439041fe516p-64, 0x1.e21c820ff28b2p-59, 0x1.c820ff28b1d5fp-63, 0x1.041fe5163abdfp-60};
struct Turned { double sine, cosine; bool is_odd, is_back; };
FLOATS Turned turned(double x) {
  const u64 power = bits_of(x) << 1 >> 53, k = power < 1046 ? 0 : (power - 1046) >> 3 & 15;
  const double y = x * of_bits((1023 - 8 * k) << 52), a = y * FIRST[k], b = y * SECOND[k], most = math::nearbyint(a), more = math::nearbyint(b);
  const double near = (a - most) + (b - more), last = math::nearbyint(near), quarter = most + more + last;
  const double angle = (near - last + y * THIRD[k]) * 1.5707963267948966, z = angle * angle, u = z * z;
  const double even = (1 - z * (1. / 2)) + u * ((1. / 24 - z * (1. / 720)) + u * ((1. / 40320 - z * (1. / 3628800)) + u * (1. / 479001600)));
  const double odd = (1 - z * (1. / 6)) + u * ((1. / 120 - z * (1. / 5040)) + u * (1. / 362880 - z * (1. / 39916800)));
  const double left = quarter - 4 * math::floor(quarter / 4);
  return {x == 0 ? x : angle * odd, even, left == 1 || left == 3, left > 1};
}
FLOATS float sin(float x) {
  const Turned a = turned(x);
  const double y = a.is_odd ? a.cosine : a.sine;
  return (float)(a.is_back ? -y : y);
}
FLOATS float cos(float x) {
  const Turned a = turned(x);
  const double y = a.is_odd ? a.sine : a.cosine;
  return (float)(a.is_back != a.is_odd ? -y : y);
}
FLOATS float tan(float x) {
  const Turned a = turned(x);
  return (float)(a.is_odd ? -a.cosine / a.sine : a.sine / a.cosine);
}

// The angle of a point from 0 to pi, from an eighth of a turn if it is near that: what is left is at most pi / 8. Infinity is 2^1000.
FLOATS double angle(double y, double x) {
  const double a = math::abs(y), b = math::abs(x), up = a > 0x1p1000 ? 0x1p1000 : a, right = b > 0x1p1000 ? 0x1p1000 : b;
  const double low = up > right ? right : up, high = up > right ? up : right;
  const bool is_far = low > high * 0.41421356237309503;
  const double r = (is_far ? low - high : low) / (high == 0 ? 1 : is_far ? low + high : high), z = r * r, u = z * z;
  const double found = r * ((0.9999999999792978 - z * 0.333333321349552) + u * ((0.19999886378049955 - z * 0.1428165114757795)
                     + u * ((0.1104118750524243 - z * 0.08459798828648327) + u * 0.04714335296177084)));
  const double flat = is_far ? found + 0.7853981633974483 : found, steep = up > right ? 1.5707963267948966 - flat : flat;
  return is_negative(x) ? 3.141592653589793 - steep : steep;
}
FLOATS float atan(float x) { return with_sign(angle(x, 1), x); }
FLOATS float atan2(float y, float x) { return with_sign(angle(y, x), y); }
FLOATS float asin(float x) { return with_sign(angle(x, math::sqrt((1. - x) * (1. + x))), x); }
FLOATS float acos(float x) { return (float)angle(math::sqrt((1. - x) * (1. + x)), x); }
}
