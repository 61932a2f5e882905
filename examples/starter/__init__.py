"""How the two starters that ship are made: pictures, features, training, measurements, card."""
