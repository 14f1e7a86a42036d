// Philox4x32 (Salmon et al. 2011): the same words as everywhere in optlang. Many counters at a time, a word in the lower half of each
// lane: what stands above it never reaches a result. Four vectors side by side: each waits for itself.
#ifdef __AVX512F__
typedef u64 Lanes __attribute__((vector_size(64)));
#elif defined(__AVX2__)
typedef u64 Lanes __attribute__((vector_size(32)));
#else
typedef u64 Lanes __attribute__((vector_size(16)));
#endif
typedef u32 Words __attribute__((vector_size(sizeof(Lanes) / 2)));
const i64 LANES = sizeof(Lanes) / 8;

// Of the lower halves of lanes. Compilers multiply whole lanes, which takes three of these, and headers that name this one are long.
static inline Lanes products(Lanes x, const Lanes& y) {
#ifdef __AVX2__
  Lanes found;
  asm("vpmuludq %2, %1, %0" : "=v"(found) : "v"(x), "v"(y));
  return found;
#elif defined(__SSE2__)
  asm("pmuludq %1, %0" : "+x"(x) : "x"(y));
  return x;
#else
  return __builtin_convertvector(__builtin_convertvector(x, Words), Lanes) * y;  // of what fits into 32 bits
#endif
}

struct Blocks { Lanes a[4], b[4], c[4], d[4]; };
// Those of the draws from `first` on; `order`: of the lanes of a vector. `counter`: (t, seed, stream).
template <int ROUNDS>
static inline __attribute__((always_inline)) Blocks blocks(u64 first, Lanes order, const u32* counter, u32 site) {
  const Lanes zero = {}, left = zero + 0xD2511F53u, right = zero + 0xCD9E8D57u;
  Blocks x;
  EACH {
    x.a[k] = order + (first + (u64)(LANES * k));
    x.b[k] = x.a[k] >> 32;
    x.c[k] = zero + counter[0];
    x.d[k] = zero + site;
  }
  u32 key = counter[1], more = counter[2];
  #pragma GCC unroll 10
  for (int round = 0; round < ROUNDS; round++) {
    Lanes one[4], other[4];
    EACH one[k] = products(x.a[k], left);
    EACH other[k] = products(x.c[k], right);
    EACH x.a[k] = other[k] >> 32 ^ x.b[k] ^ (u64)key;
    EACH x.c[k] = one[k] >> 32 ^ x.d[k] ^ (u64)more;
    EACH x.b[k] = other[k];
    EACH x.d[k] = one[k];
    key += 0x9E3779B9u;
    more += 0xBB67AE85u;
  }
  return x;
}
static inline Lanes in_order() {
  Lanes order;
  for (i64 k = 0; k < LANES; k++) order[k] = (u64)k;
  return order;
}
// The words of four vectors, one after the other.
static inline void put(const Lanes* from, u32* to) {
  EACH {
    const Words words = __builtin_convertvector(from[k], Words);
    __builtin_memcpy(to + LANES * k, &words, sizeof words);
  }
}
