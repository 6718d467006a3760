"""Load a chat model, name the places in it (sites), read and change them, and score its refusals."""
