// The server's mutex is everybody's: base/mutex.h.
#pragma once

#include "base/mutex.h"  // IWYU pragma: export
