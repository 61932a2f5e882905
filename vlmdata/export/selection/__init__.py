"""Which of the samples that stage 03 lets through leave the house, and in which split."""
