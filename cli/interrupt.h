// Ctrl-C and SIGTERM as a flag that long work polls.
#pragma once

namespace nestrec {

// From now on the first SIGINT or SIGTERM sets the flag; a second SIGINT ends the program at once.
void CatchInterrupts();
bool Interrupted();

}  // namespace nestrec
