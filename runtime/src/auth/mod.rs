//! Who calls, and whether they may: tokens, keys, and the layer in front of a service.
