import { Command, Option } from 'commander';
import { withAdminOptions, withClientOptions } from './connection-options.ts';

/**
 * Lets the connection options of the commands in a group stand before a command's name too, as an alias has them. What
 * stands after the name wins over what stands before it, and either over the environment; an option that the command
 * does not have is refused in both places.
 */
export function allowConnectionOptionsFirst(group: Command): void {
  const leading = connectionOptions().map(leadingForm);
  for (const option of leading) group.addOption(option);
  // Without this the group would take them away from behind the command's name.
  group.enablePositionalOptions();
  group.hook('preSubcommand', (_group, command) => {
    for (const option of leading) handDown(option, group, command);
  });
}

/** Each once, whichever kind of command has it. */
function connectionOptions(): readonly Option[] {
  const both = [withClientOptions(new Command()), withAdminOptions(new Command())];
  return [
    ...new Map(both.flatMap(({ options }) => options).map((option) => [option.flags, option])).values(),
  ];
}

/** The option without its default and its environment variable, which are the command's to apply. */
function leadingForm({ flags, description, parseArg }: Option): Option {
  const option = new Option(flags, description).helpGroup('Connection, here or after the command:');
  return parseArg === undefined ? option : option.argParser(parseArg);
}

function handDown(option: Option, group: Command, command: Command): void {
  const name = option.attributeName();
  if (group.getOptionValueSource(name) === undefined) return;
  if (command.options.every((own) => own.attributeName() !== name)) {
    command.error(`error: ${command.name()} has no option --${option.name()}`);
  }
  command.setOptionValueWithSource(name, group.getOptionValue(name), 'cli');
}
