"""What is long and tested of single experiments; the rest stands in their notebooks."""
