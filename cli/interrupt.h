// Ctrl-C and SIGTERM as a flag that long work polls.
//
// Thread safety: CatchInterrupts from the main thread, whose handlers then have a stack of their
// own; the others from any.
#pragma once

namespace nestrec {

// From now on the first SIGINT or SIGTERM sets the flag; a second SIGINT ends the program at once.
void CatchInterrupts();
bool Interrupted();
// Whether it was a SIGTERM that set it: an orderly stop, asked for by whoever runs the program.
bool Terminated();

}  // namespace nestrec
