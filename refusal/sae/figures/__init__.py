"""Pictures of trainings, one file a picture: data in, a matplotlib Figure out; ``refusal.style.save_png`` writes it."""
