"""Prompts: read them, one file a data set; choose among them, put them into folds, augment them, count them."""
