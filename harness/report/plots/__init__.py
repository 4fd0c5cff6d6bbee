"""The pictures of a study as matplotlib figures, a module per question. How they become files is `report.pictures`.

Each function returns None where the study has nothing for it to show.
"""
