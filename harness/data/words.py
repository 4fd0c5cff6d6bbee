"""What options of `bm3 data` say, known before anything that reads data is loaded."""

NO_VALIDATION = "no_validation"
SPLIT_CHOICE = "leave_K_out, any rule followed by :no_validation for training and test alone"
"""What can be asked for beside SPLIT_RULES."""
SPLIT_RULES = ("random_user", "leave_one_out", "temporal_user", "temporal_global")
DEFAULT_SPLIT_SEED = 0
TEXT_MODEL = "sentence-transformers/all-MiniLM-L6-v2"
"""384-d; the model behind the published textual features."""
IMAGE_MODEL = "resnet50.a1_in1k"
"""2048-d. The published visual features are 4096-d vectors that came with the data set; no model here makes them."""
