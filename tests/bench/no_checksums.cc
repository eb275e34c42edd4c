// Preloaded, it takes the place of ISA-L's CRC32C: what a transfer costs without checksums is
// measured with the released binaries themselves. Both ends must have it.

extern "C" unsigned int crc32_iscsi(unsigned char*, int, unsigned int) { return 0; }
