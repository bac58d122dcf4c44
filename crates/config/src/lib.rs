//! Domain configuration files in xm and xl syntax.
