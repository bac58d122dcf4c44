//! Guest kernel images: bzImage payloads, ELF, Xen notes.
