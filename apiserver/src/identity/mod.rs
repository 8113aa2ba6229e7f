//! Who a connection or a token belongs to; the certificate authority; token signing.
