"""What a report is made of: HTML pages that stand alone, figures, a font that has the characters, texts in two languages."""
