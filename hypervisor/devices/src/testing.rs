//! A virtual driver that drives every device by its registers and rings.
