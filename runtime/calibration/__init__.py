"""What the analytic variance needs to know of a network: measured over data, resumed, stored in the bundle."""
