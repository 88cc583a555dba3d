#include "narrow.hpp"
