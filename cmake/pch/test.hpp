// Precompiled for the unit tests.
#include "base.hpp"

#include <gtest/gtest.h>
