"""The live side: libxc at run time, the event channel, the ring. The only importer of cffi."""
