"""A connection that vanished without a word, as if a host or a firewall had dropped it. Linux only."""

import ctypes
import socket
import struct

SO_ATTACH_FILTER = 26  # man 7 socket
BPF_RET_K = 0x06  # the one instruction: accept so many bytes of each packet


def drop_all_that_comes(sock):
    """The kernel drops all that arrives there, and acknowledges nothing."""
    program = ctypes.create_string_buffer(struct.pack("HBBI", BPF_RET_K, 0, 0, 0))
    value = struct.pack("HP", 1, ctypes.addressof(program))
    sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, value)
