// Memory that notices who writes where it is not his, at the speed of the processor itself: valgrind runs neither AVX-512 nor threads
// side by side. Every block has a zone before and behind it, and is kept filled for a while when it has been freed. What is written into
// either ends the process, and says when: at the latest when the block is given back, or the process ends.
//
//     cc -O2 -shared -fPIC -o redzones.so tests/faults/redzones.c && LD_PRELOAD=./redzones.so PYTHONMALLOC=malloc python ...
//
// REDZONES_MB: how much freed memory is kept (256); REDZONES_DEPTH: how many callers of malloc and free are remembered (none: it is slow).
#define _GNU_SOURCE
#include <errno.h>
#include <execinfo.h>
#include <pthread.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

extern void* __libc_malloc(size_t);
extern void __libc_free(void*);

enum { ZONE = 32, DEPTH = 12, NOW = 40 };
const unsigned char FILL = 0xDB, RED = 0xC7;
const uint64_t LIVE = 0x51AFE51AFE51AFE5u, DEAD = 0xDEADF4EEDEADF4EEu, BEFORE = 0xF4FBF4FBF4FBF4FBu;

typedef struct Block {  // before the memory that is handed out; of a size that keeps it aligned
  void* raw;
  size_t size;
  struct Block* next;  // that was freed after it
  void *made[DEPTH], *freed[DEPTH];
  uint64_t unused, mark, zone;
} Block;
_Static_assert(sizeof(Block) % 16 == 0, "malloc aligns to 16 bytes");

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static Block *first, *last;  // of those that are kept
static size_t kept, most = 256u << 20, frees;
static int depth;
static __thread int inside;  // what asks for callers may ask for memory

static void say(const char* form, ...) {
  char text[512];
  va_list given;
  va_start(given, form);
  const int size = vsnprintf(text, sizeof text, form, given);
  va_end(given);
  if (write(STDERR_FILENO, text, (size_t)size) < 0) _exit(3);
}
static void say_callers(const char* what, void* const* callers) {
  int count = 0;
  while (count < DEPTH && callers[count]) count++;
  say("%s:\n", what);
  backtrace_symbols_fd(callers, count, STDERR_FILENO);
}
static void end(const char* what, const Block* block, const void* where) {
  inside = 1;
  const ptrdiff_t place = (const char*)where - (const char*)(block + 1);
  say("\nredzones: process %d: %s: block of %zu bytes at %p, byte %td\n", getpid(), what, block->size, (void*)(block + 1), place);
  if (depth) say_callers("made by", block->made), say_callers("freed by", block->freed);
  void* now[NOW];
  say("found by:\n");
  backtrace_symbols_fd(now, backtrace(now, NOW), STDERR_FILENO);
  abort();
}
static void note(void** callers) {
  callers[0] = NULL;
  if (!depth || inside) return;
  inside = 1;
  void* found[DEPTH + 2];
  const int count = backtrace(found, depth + 2);
  for (int k = 2; k < count; k++) callers[k - 2] = found[k];
  if (count - 2 < DEPTH) callers[count > 2 ? count - 2 : 0] = NULL;
  inside = 0;
}

static const unsigned char* other(const unsigned char* from, size_t count, unsigned char byte) {  // than this one; NULL: there is none
  for (size_t k = 0; k < count; k++)
    if (from[k] != byte) return from + k;
  return NULL;
}
static void check_zones(const Block* block) {
  const unsigned char* wrong = other((const unsigned char*)(block + 1) + block->size, ZONE, RED);
  if (wrong) end("written behind its end", block, wrong);
  if (block->zone != BEFORE) end("written before its beginning", block, &block->zone);
}
static void check_freed(const Block* block) {
  const unsigned char* wrong = other((const unsigned char*)(block + 1), block->size, FILL);
  if (wrong) end("written after it was freed", block, wrong);
  check_zones(block);
}
static Block* block_of(void* memory) {
  Block* const block = (Block*)memory - 1;
  if (block->mark == (DEAD ^ (uintptr_t)memory)) end("freed twice", block, memory);
  if (block->mark != (LIVE ^ (uintptr_t)memory)) end("written before its beginning, or no block", block, &block->mark);
  check_zones(block);
  return block;
}
static void* made(size_t size, size_t align) {
  const size_t all = size + sizeof(Block) + ZONE + (align < 16 ? 16 : align);
  char* const raw = all < size ? NULL : __libc_malloc(all);
  if (!raw) return errno = ENOMEM, NULL;
  const uintptr_t place = ((uintptr_t)raw + all - size - ZONE) & ~((align < 16 ? 16 : (uintptr_t)align) - 1);
  Block* const block = (Block*)place - 1;
  *block = (Block){.raw = raw, .size = size, .zone = BEFORE, .mark = LIVE ^ place};
  note(block->made);
  memset((char*)place + size, RED, ZONE);
  return (void*)place;
}

void free(void* memory) {
  if (!memory) return;
  const int error = errno;
  Block *const block = block_of(memory), *gone = NULL;
  note(block->freed);
  memset(memory, FILL, block->size);
  block->mark = DEAD ^ (uintptr_t)memory;
  pthread_mutex_lock(&lock);
  if (last) last->next = block; else first = block;
  last = block, kept += block->size + sizeof(Block), frees++;
  while (kept > most && first != last) {
    Block* const old = first;
    first = old->next, kept -= old->size + sizeof(Block);
    old->next = gone, gone = old;
  }
  pthread_mutex_unlock(&lock);
  for (Block* next; gone; gone = next) {
    next = gone->next;
    check_freed(gone);
    __libc_free(gone->raw);
  }
  errno = error;
}
void* malloc(size_t size) { return made(size, 16); }
void* memalign(size_t align, size_t size) { return made(size, align); }
void* aligned_alloc(size_t align, size_t size) { return made(size, align); }
void* valloc(size_t size) { return made(size, 4096); }
int posix_memalign(void** memory, size_t align, size_t size) {
  void* const found = made(size, align);
  return found ? (*memory = found, 0) : ENOMEM;
}
void* calloc(size_t count, size_t each) {
  size_t size;
  if (__builtin_mul_overflow(count, each, &size)) return errno = ENOMEM, NULL;
  void* const found = made(size, 16);
  return found ? memset(found, 0, size) : NULL;
}
void* realloc(void* memory, size_t size) {
  if (!memory) return made(size, 16);
  const size_t before = block_of(memory)->size;
  void* const found = size ? made(size, 16) : NULL;
  if (size && !found) return NULL;
  if (found) memcpy(found, memory, size < before ? size : before);
  free(memory);
  return found;
}
void* reallocarray(void* memory, size_t count, size_t each) {
  size_t size;
  return __builtin_mul_overflow(count, each, &size) ? (errno = ENOMEM, NULL) : realloc(memory, size);
}
size_t malloc_usable_size(void* memory) { return memory ? ((Block*)memory - 1)->size : 0; }

static void hold(void) { pthread_mutex_lock(&lock); }
static void let_go(void) { pthread_mutex_unlock(&lock); }
__attribute__((constructor)) static void begin(void) {
  void* now[1];
  inside = 1, backtrace(now, 1), inside = 0;  // loads what it needs
  if (getenv("REDZONES_MB")) most = (size_t)atoi(getenv("REDZONES_MB")) << 20;
  if (getenv("REDZONES_DEPTH")) depth = atoi(getenv("REDZONES_DEPTH")) < DEPTH ? atoi(getenv("REDZONES_DEPTH")) : DEPTH;
  pthread_atfork(hold, let_go, let_go);
}
// Looks at all that is kept, also when the process ends. How many blocks have been freed so far.
__attribute__((visibility("default"))) size_t redzones(void) {
  hold();
  for (const Block* block = first; block; block = block->next) check_freed(block);
  let_go();
  return frees;
}
__attribute__((destructor)) static void finish(void) { redzones(); }
