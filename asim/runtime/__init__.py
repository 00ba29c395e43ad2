"""What runs inside an Experiment: the pass down (submit), the pass up (monitor), handles, events, the journal."""
