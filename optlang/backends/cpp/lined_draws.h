// Draws for the elements of a chunk, which are asked for row by row: for as many short rows at once as a block holds, since few elements
// fill no vectors.
template <double kind(u32, u32), class number>
struct Drawn {
  const u32 *counter, site;
  i64 cols, last;  // behind the last element of the chunk
  i64 begin = 0, end = 0;
  number found[DRAWN];

  const number* of(i64 low, i64 high) {
    if (high > end) {
      const i64 many = cols < DRAWN ? DRAWN / cols * cols : high - low;
      begin = low;
      end = low + many < last ? low + many : last;
      draw<kind>(begin, end, counter, site, found);
    }
    return found + (low - begin);
  }
};
